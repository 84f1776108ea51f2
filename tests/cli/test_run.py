"""`run` on a real, tiny task."""

import onnx
import pytest

from compressor.pipeline import run as pipeline
from compressor.report import Report, Skip
from tests.cli.conftest import call
from tests.report.sample import sample


def test_a_run_that_meets_its_limits_ends_with_0(finished):
    out, result = finished
    assert result.code == 0
    assert "tiny" in result.out
    assert f"report: {out}/report.html" in result.err


def test_the_run_leaves_its_report(finished):
    report = Report.from_json((finished[0] / "report.json").read_text())
    assert (report.name, report.quick, report.limits_met) == ("tiny", True, True)
    assert report.steps[0].changes


@pytest.fixture(scope="module")
def missed(files):
    """A run with overrides, one of them a limit that no model meets."""
    overrides = ("--set", "limits.parameters_ratio=1000", "--set", "steps.0.count=3", "--set", "seed=9")
    out = files / "missed"
    return out, call(*("run", files / "recipe.yaml", "--task", files / "task.py", "--out", out, "--quick", *overrides))


def test_a_missed_limit_ends_with_1_and_is_named(missed):
    assert missed[1].code == 1
    assert "Limits missed: parameters_ratio reached " in missed[1].out


def test_an_override_is_in_the_report(missed):
    report = Report.from_json((missed[0] / "report.json").read_text())
    assert (report.recipe["steps"][0]["count"], report.seed, report.limits_met) == (3, 9, False)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"recipe": "nowhere.yaml"}, "error: there is no file `nowhere.yaml`\n"),
        ({"task": "nowhere.py"}, "error: no task file at nowhere.py\n"),
        ({"device": "tpu"}, "error: unknown device `tpu`\n"),
        ({"threads": "0"}, "error: invalid value for '--threads': "),
    ],
)
def test_bad_input_ends_with_2_and_leaves_no_folder(files, tmp_path, change, text):
    given = {"recipe": files / "recipe.yaml", "task": files / "task.py", "device": "cpu", "threads": "1"} | change
    recipe = given.pop("recipe")
    options = [part for key, value in given.items() for part in (f"--{key}", value)]
    result = call("run", recipe, "--out", tmp_path / "out", *options)
    assert (result.code, result.out) == (2, "")
    assert text in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_measures_files_with_fixed_axes_in_half_precision(files, tmp_path):
    text = (files / "recipe.yaml").read_text()
    options = "{format: onnx, precision: float16, float_io: false, shapes: {batch: 4, time: 7}}"
    (tmp_path / "recipe.yaml").write_text(text.replace("- format: onnx", f"- {options}"))
    result = call("run", tmp_path / "recipe.yaml", "--task", files / "task.py", "--out", tmp_path / "out", "--quick")
    assert result.code == 0, result.err
    report = (tmp_path / "out" / "report.json").read_text()
    assert '"float16"' in report
    assert onnx.load(tmp_path / "out" / "original.onnx").graph.input[0].type.tensor_type.elem_type == 1


@pytest.mark.parametrize("refused", [(), (Skip(name="model.mnn", reason="its runtime is not installed"),)])
def test_a_refused_export_ends_with_1_though_all_limits_are_met(files, tmp_path, monkeypatch, refused):
    result = sample().model_copy(update={"limits": (), "refused": refused})
    assert result.limits_met
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: result)
    given = ("run", files / "recipe.yaml", "--task", files / "task.py", "--out", tmp_path / "out")
    ended = call(*given)
    assert ended.code == len(refused)
    assert all(f"Export failed: {skip.name}" in ended.out for skip in refused)
