"""`report` shows a finished run again."""

import json

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
        f"error: there is no file `{tmp_path}/report.json`\nhint: give the --out folder of a finished run\n",
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
