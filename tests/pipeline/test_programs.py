"""The folder `use/` of a run: each program gives what the file gives, and a wrong file or example is noticed."""

import importlib.util
import json
import shutil
import subprocess
import sys

import pytest

from compressor import recipe
from compressor.pipeline.run import run
from compressor.render.programs import LANGUAGES
from compressor.report import Report
from compressor.task import loading as tasks
from tests.pipeline.test_run import TASK

RECIPE = """
schema_version: 1
name: programs
steps:
  - {method: magnitude, prune: units, ratio: 0.5}
exports:
  - {format: onnx, stream: true}
  - {format: onnx, name: rounded, precision: int8}
  - {format: onnx, name: alone, programs: false}
"""
STEMS = ("model", "model.step", "rounded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("programs")
    (path / "task.py").write_text(TASK)
    (path / "recipe.yaml").write_text(RECIPE)
    return path


def _run(folder, name, **options):
    chosen = recipe.load(str(folder / "recipe.yaml"))
    run(chosen, tasks.load(str(folder / "task.py")), folder / name, device="cpu", **options)
    return folder / name


@pytest.fixture(scope="module")
def done(folder):
    return _run(folder, "run")


def program(path):
    spec = importlib.util.spec_from_file_location("program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_onnx_file_has_programs_and_the_report_lists_them(done):
    names = {f"{stem}.{ending}" for stem in STEMS for ending in (*LANGUAGES, "example.json")}
    assert {path.name for path in (done / "use").iterdir()} == names
    report = Report.from_json((done / "report.json").read_text())
    assert {name.removeprefix("use/") for name in report.files if name.startswith("use/")} == names
    assert max(path.stat().st_size for path in (done / "use").iterdir()) < 10_000


@pytest.mark.parametrize("stem", STEMS)
def test_the_python_program_gives_what_the_file_gives(done, stem):
    module = program(done / "use" / f"{stem}.py")
    assert module.check() < 1e-6


def test_the_python_program_runs_by_itself(done):
    ran = subprocess.run(
        [sys.executable, str(done / "use" / "model.step.py")], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("largest difference from the example: ")


def test_a_file_that_gives_something_else_is_noticed(done):
    module = program(done / "use" / "model.step.py")
    example = json.loads((done / "use" / "model.step.example.json").read_text())
    assert len(example["calls"]) == 3
    example["calls"][1]["inputs"], example["calls"][0]["inputs"] = (example["calls"][k]["inputs"] for k in (0, 1))
    other = done.parent / "other.json"
    other.write_text(json.dumps(example))
    assert module.check(example=other) > 1e-3


def test_a_rehearsal_and_a_later_run_without_programs_leave_none(folder, done):
    copy = folder / "again"
    shutil.copytree(done, copy)
    text = (folder / "recipe.yaml").read_text()
    only = text[: text.index("  - {format: onnx, stream")] + "  - {format: onnx, programs: false}\n"
    (folder / "without.yaml").write_text(only)
    chosen = recipe.load(str(folder / "without.yaml"))
    run(chosen, tasks.load(str(folder / "task.py")), copy, device="cpu", quick=True, force=True)
    assert not (copy / "use").exists()
