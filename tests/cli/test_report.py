"""`report` shows a finished run again."""

import importlib.util
import json
import shutil

import pytest

from tests.cli.conftest import call


def test_the_report_can_be_shown_again_in_every_form(finished):
    out = finished[0]
    assert call("report", out, "--format", "json").out == (out / "report.json").read_text()
    assert call("report", out, "--format", "md").out.rstrip("\n") == (out / "report.md").read_text().rstrip("\n")
    assert call("report", out, "--format", "html").out.startswith("<!doctype html>")
    assert call("report", out).out == finished[1].out


def test_a_folder_without_a_report(tmp_path):
    result = call("report", tmp_path)
    assert (result.code, result.err) == (
        2,
        f"error: there is no file `{tmp_path}/report.json`\nhint: give the --out folder of a finished run or search\n",
    )


def test_a_folder_with_an_unfinished_run_only(tmp_path):
    (tmp_path / "unfinished").mkdir()
    result = call("report", tmp_path)
    assert (result.code, result.err) == (
        2,
        f"error: `{tmp_path}` holds an unfinished run and no finished one\n"
        f"hint: the command that began it goes on from there; see {tmp_path}/unfinished/run.log\n",
    )


@pytest.mark.parametrize("text", ["{}", "not json", json.dumps({"schema_version": 1})])
def test_a_report_that_is_damaged(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    result = call("report", tmp_path)
    assert result.code == 2
    assert result.err.startswith("error: not a report of this tool: ")


def test_a_report_that_is_not_text(tmp_path):
    (tmp_path / "report.json").write_bytes(b"\xff\xfe")
    assert call("report", tmp_path).err.startswith(f"error: `{tmp_path}/report.json` is not UTF-8 text (byte 0xff)\n")


def test_several_runs_stand_side_by_side(finished):
    out = finished[0]
    facts = json.loads(call("report", out, out, "--format", "json").out)
    report = json.loads((out / "report.json").read_text())
    assert [file["file"] for file in facts["files"]] == ["original.onnx", "model.onnx", "model.onnx"]
    assert facts["files"][1]["bytes"] == report["compressed"][0]["artifact"]["bytes"]
    assert facts["files"][1]["latency_ms"] == report["compressed"][0]["latency"]["p50"]
    assert call("report", out, out).out.startswith("1 run of Signs • ")  # the same folder, twice
    assert call("report", out, out, "--format", "html").out.startswith("<!doctype html>")
    assert call("report", out, out, "--format", "md").out.startswith("# ")


def test_runs_of_other_tasks_are_refused(finished, tmp_path):
    facts = json.loads((finished[0] / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(facts | {"task": "Other"}))
    result = call("report", finished[0], tmp_path)
    assert result.code == 2
    assert "runs of different tasks cannot be compared" in result.err


def test_a_run_keeps_the_command_that_repeats_it_and_what_each_layer_takes(finished):
    facts = json.loads((finished[0] / "report.json").read_text())
    assert facts["command"][:2] == ["compressor", "run"]
    assert facts["command"][facts["command"].index("--out") + 1] == str(finished[0])
    for file in (facts["original"], *facts["compressed"]):
        assert sum(cost["bytes"] for cost in file["costs"]) == file["artifact"]["bytes"]
        assert sum(cost["macs"] for cost in file["costs"]) == file["macs"]
        assert sum(cost["parameters"] for cost in file["costs"]) == file["parameters"]
        assert {cost["name"] for cost in file["costs"]} == {"gru", "out", ""}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_a_finished_run_is_sent_to_a_tracker_and_several_are_not(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    result = call("report", folder, "--log", "tensorboard")
    assert (result.code, result.out) == (0, "")
    assert f"log: tensorboard --logdir {folder / 'tensorboard'}" in result.err
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    result = call("report", folder, folder, "--log", "tensorboard")
    assert (result.code, "`--log` takes the folder of one run" in result.err) == (2, True)


def test_a_run_whose_tracker_is_not_installed_is_refused_before_it_begins(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = call("run", "units-half", "--task", "none.py", "--out", "out", "--log", "wandb")
    assert (result.code, "`--log wandb` needs the package `wandb`" in result.err) == (2, True)
