"""The commands as functions: what the commands give, tasks and recipes in any form, and nothing loaded too early."""

import html
import json
import subprocess
import sys

import pytest
import torch

import compressor
from compressor.errors import CompressorError, RecipeErrors, TaskError, UsageError
from compressor.progress import Silent
from compressor.report import Report
from compressor.task.guard import GuardedTask
from tests.cli.conftest import call
from tests.folders import BLOBS, HALF, write_folder

SILENT = Silent()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("interface"), BLOBS, HALF)


@pytest.fixture(scope="module")
def report(folder):
    return compressor.run(folder / "recipe.yaml", folder / "task.py", folder / "out", quick=True, progress=SILENT)


def test_importing_the_package_loads_nothing_and_every_name_is_there():
    code = "import compressor, sys; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert all(getattr(compressor, name) is not None for name in compressor.__all__)


def test_a_run_gives_the_report_that_it_writes(folder, report):
    assert Report.from_json((folder / "out" / "report.json").read_text()) == report
    assert isinstance(compressor.load(folder / "out", compressor.load_task(str(folder / "task.py"))), torch.nn.Module)


def test_recipes_and_tasks_are_taken_in_every_form(folder, report):
    chosen = compressor.load_recipe(str(folder / "recipe.yaml"))
    kind = type(compressor.load_task(str(folder / "task.py")).task)
    for number, task in enumerate(
        (f"{folder / 'task.py'}:Blobs", kind, kind(), GuardedTask(kind(), str(folder / "task.py")))
    ):
        again = compressor.run(chosen, task, folder / f"again{number}", quick=True, progress=SILENT)
        assert again.recipe_sha256 == report.recipe_sha256
        assert [one.artifact.sha256 for one in again.compressed] == [one.artifact.sha256 for one in report.compressed]


def test_overrides_change_a_recipe_by_name_and_are_refused_with_an_object(folder):
    changed = compressor.load_recipe(str(folder / "recipe.yaml"), ["steps.1.ratio=0.25"])
    assert changed.steps[1].ratio == 0.25
    with pytest.raises(UsageError, match="`overrides` are for a recipe by name or path"):
        compressor.run(changed, folder / "task.py", folder / "o", overrides=["seed=1"])
    with pytest.raises(RecipeErrors, match="no option `sparsty`"):
        compressor.run(folder / "recipe.yaml", folder / "task.py", folder / "o", overrides=["steps.0.sparsty=0.1"])


def test_a_task_that_is_in_no_file_is_refused_with_the_way_to_write_one(folder):
    space = {"__name__": "a_notebook"}
    exec(BLOBS, space)
    with pytest.raises(TaskError, match="the class `Blobs` is in no file") as caught:
        compressor.run(folder / "recipe.yaml", space["Blobs"], folder / "o")
    assert "%%writefile task.py" in caught.value.hint


def test_inspect_gives_what_the_command_gives(folder):
    given = compressor.inspect(folder / "task.py", evaluate=True, progress=SILENT)
    result = call("inspect", "--task", folder / "task.py", "--evaluate", "--json")
    assert json.loads(result.out) == json.loads(json.dumps(given))
    assert given["score"]["value"] > 0.5


def test_search_takes_goals_as_a_mapping_and_refuses_what_is_none(folder):
    with pytest.raises(CompressorError, match="max_dropp"):
        compressor.search({"max_dropp": 0.1}, folder / "task.py", folder / "search")


def test_a_report_shows_itself_in_a_notebook_as_its_page(report):
    shown = report._repr_html_()
    assert shown.startswith('<iframe srcdoc="')
    assert 'sandbox="allow-scripts"' in shown
    inside = html.unescape(shown.partition('srcdoc="')[2].partition('" title=')[0])
    assert inside.lstrip().startswith("<!doctype html>")
    assert "<iframe" not in inside
    assert report.name in inside


def test_progress_is_printed_as_lines(folder, capsys):
    compressor.inspect(folder / "task.py")
    compressor.run(folder / "recipe.yaml", folder / "task.py", folder / "printed", quick=True)
    assert "step 2 of 3: magnitude" in capsys.readouterr().out
