"""`bench`: the table and the facts."""

import json

import onnx
import pytest

from tests.cli.conftest import call

FEW = ("--rounds", "8", "--runs", "1")


def test_the_first_file_is_the_baseline_of_the_others(finished):
    out = finished[0]
    result = call("bench", out / "original.onnx", out / "model.onnx", *FEW)
    first, second = result.out.splitlines()[2:]
    assert " baseline " in first
    assert "x (" in second
    assert all("ONNX Runtime 1" in line for line in (first, second))
    assert "\nbatch 1, length 32, threads 1, " in result.err


def test_the_facts_come_as_json_at_the_tasks_length(finished, files):
    out = finished[0]
    result = call("bench", out / "original.onnx", out / "model.onnx", "--task", files / "task.py", "--json", *FEW)
    first, second = json.loads(result.out)
    assert (first["speedup"], first["latency"]["length"]) == (None, 7)
    assert first["bytes"] > second["bytes"]
    assert second["speedup"]["interval"]["low"] <= second["speedup"]["ratio"] <= second["speedup"]["interval"]["high"]


def test_weights_in_a_file_of_their_own_are_counted(finished, tmp_path):
    whole = finished[0] / "original.onnx"
    split = tmp_path / "split.onnx"
    onnx.save_model(onnx.load(whole), split, save_as_external_data=True, location="split.data", size_threshold=100)
    result = call("bench", whole, split, "--json", *FEW)
    first, second = json.loads(result.out)
    assert split.stat().st_size < first["bytes"] / 2
    assert second["bytes"] == split.stat().st_size + (tmp_path / "split.data").stat().st_size


def test_a_missing_file():
    result = call("bench", "nowhere.onnx")
    assert (result.code, result.err) == (
        2,
        "error: there is no file `nowhere.onnx`\nhint: give exported files, such as model.onnx or model.mnn\n",
    )


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    result = call("bench", tmp_path / "text.onnx")
    assert result.code == 2
    assert f"\nerror: {tmp_path}/text.onnx is not an ONNX file, or is cut off\nhint: " in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch", 10**12), "of shape (1000000000000, 32, 3) takes "),
        (("--batch", 10**30), "takes "),
        (("--length", 10**15), "takes "),
        (("--threads", 10**6), "should be less than or equal to 256"),
        (("--batch", 10**12, "--task", "task.py"), "an example of batch size 1000000000000 takes "),
        (("--length", 10**12, "--task", "task.py"), "--length 1000000000000 is more than the task's `max_length`, 13"),
    ],
)
def test_sizes_that_no_machine_has_are_refused_before_anything_is_made(finished, files, options, said):
    options = [files / option if option == "task.py" else option for option in options]
    result = call("bench", finished[0] / "original.onnx", *options)
    assert result.code == 2
    assert said in result.err
    assert "\nhint: " in result.err
