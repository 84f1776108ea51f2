"""A finished run is carried out again, and what differs is told."""

from __future__ import annotations

import json
import shutil

import pytest

from compressor import recipe
from compressor.errors import ReportError
from compressor.pipeline.comparing import facts_that_differ
from compressor.pipeline.reproducing import read, reproduce
from compressor.task import loading as tasks
from tests.cli.conftest import call
from tests.folders import BLOBS, HALF, carried_out, write_folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("reproducing"), BLOBS, HALF)
    carried_out(folder, "run", quick=True)
    return folder


def test_a_run_is_reproduced_and_a_file_that_was_changed_is_not(done, tmp_path):
    shutil.copytree(done / "run", tmp_path / "run")
    with (tmp_path / "run" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    task, out = str(done / "task.py"), tmp_path / "again"
    result = call("reproduce", tmp_path / "run", "--task", task, "--out", out, "--json")
    facts = json.loads(result.out)
    assert {file["name"] for file in facts["files"] if not file["same"]} == {"model.onnx"}
    assert (result.code, facts["reproduced"], facts["environment"], facts["differing"]) == (1, False, [], [])
    assert [(one["name"], one["outcome"]) for one in facts["numbers"]][:2] == [("metric", "same")] * 2
    changed = BLOBS.replace("manual_seed(1)", "manual_seed(2)")
    (done / "other.py").write_text(changed)
    told = reproduce(done / "run", recipe.load(str(done / "run" / "recipe.yaml")), tasks.load(str(done / "other.py")),
                     tmp_path / "other")  # fmt: skip
    assert told.environment == ("the model has other weights or another structure: its checkpoint was changed",)
    assert not told.reproduced


def test_a_folder_that_says_too_little_or_has_another_recipe_is_refused(done, tmp_path):
    with pytest.raises(ReportError, match="there is no file"):
        read(tmp_path)
    facts = json.loads((done / "run" / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**facts, "conditions": None}))
    with pytest.raises(ReportError, match="does not say what its run was given"):
        read(tmp_path)
    other = recipe.load(str(done / "recipe.yaml"), ["seed=7"])
    with pytest.raises(ReportError, match="is not the recipe of the report: seed is 3 there and 7 now"):
        reproduce(done / "run", other, tasks.load(str(done / "task.py")), tmp_path / "out")


def test_facts_are_compared_but_for_times_and_what_follows_from_them():
    first = {"score": {"value": 0.5}, "seconds": 1.0, "layers": [{"nonzeros": 3, "latency": {"p50": 1.0}}]}
    second = {"score": {"value": 0.25}, "seconds": 2.0, "layers": [{"nonzeros": 4, "latency": {"p50": 2.0}}]}
    assert facts_that_differ(first, second) == ["layers.0.nonzeros: 3 and 4", "score.value: 0.5 and 0.25"]
    assert facts_that_differ(first, {**first, "more": None}) == []
    assert facts_that_differ({"environment": {"load": 0.5}}, {"environment": {"load": 2.5}}) == []
    assert facts_that_differ(first, {**first, "layers": []}) != []
