from __future__ import annotations

import json

import pytest

from tests.cli.conftest import call


def test_a_model_is_written_proven_and_measured_as_it_is(files, tmp_path):
    result = call("export", "--task", files / "task.py", "--out", tmp_path / "o", "--json")
    assert result.code == 0
    report = json.loads(result.out)
    (file,) = report["files"]
    assert file["artifact"]["parity"]["points"][0]["within"]
    assert file["score"]["value"] == report["score"]["value"]
    assert file["latency"]["p50"] > 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["export.json", "model.onnx", "use"]
    assert json.loads((tmp_path / "o" / "export.json").read_text()) == report


def test_rounding_alone_is_an_export_too(files, tmp_path):
    result = call("export", "--task", files / "task.py", "--out", tmp_path, "--precision", "int8", "--no-measure")
    assert result.code == 0
    assert "by rounding" in result.out
    assert "accuracy" not in result.out


def test_options_reach_the_format(files, tmp_path):
    wanted = ("--set", "stream.chunk=2", "--set", "opset=17", "--no-measure")
    assert (
        call("export", "--task", files / "task.py", "--out", tmp_path, *wanted).code == 2
    )  # its last step alone is no stream
    result = call(
        "export", "--task", files / "task.py", "--out", tmp_path, "--set", "opset=17", "--no-measure", "--json"
    )
    assert json.loads(result.out)["files"][0]["artifact"]["opset"] == 17


def test_a_model_without_a_state_space_layer_has_no_rate_to_scale(files, tmp_path):
    result = call("export", "--task", files / "task.py", "--out", tmp_path / "o", "--rate-scale", "2")
    assert result.code == 2
    assert "the model has no state-space layer" in result.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--format", "onyx"), "unknown format `onyx`"),
        (("--format", "onnx,onnx"), "names a format twice"),
        (("--format", "mnn", "--precision", "int8"), "format `mnn` has no option `precision`"),
        (
            ("--format", "ort", "--precision", "int8"),
            "that have it, in a command of their own: c, exec",
        ),
        (("--set", "opset=99"), "`opset` of format `onnx`"),
        (("--set", "opset"), "sets nothing"),
    ],
)
def test_what_no_format_has_is_said_before_anything_is_loaded(tmp_path, arguments, text):
    result = call("export", "--task", tmp_path / "missing.py", "--out", tmp_path, *arguments)
    assert result.code == 2
    assert text in result.err
