"""Whole searches on a small task: goals met, goals missed, interrupted and gone on."""

import textwrap

import pytest

from compressor.errors import OutputError, UsageError
from compressor.report import Report, SearchReport
from compressor.studies.search.folder import SearchFolder
from compressor.studies.search.goals import Goals
from compressor.studies.search.place import Place
from compressor.studies.search.preparing import prepare
from compressor.studies.search.search import search
from tests.studies.search.tiny import TASK

pytestmark = pytest.mark.slow
GOALS = Goals.model_validate({"max_drop": 0.03, "trials": 7, "exports": [{"format": "onnx"}]})


class _KilledError(BaseException):
    """What `kill -9` is to a process."""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "task.py"
    path.write_text(textwrap.dedent(TASK), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def found(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("searches") / "undisturbed"
    return out, search(GOALS, Place(task, out))


def _dying(worker, deadly):
    """The worker, whose process ends in the middle of one of its trials."""
    evaluate, calls = worker.evaluator.at, []

    def at(point, rung):
        calls.append(rung)
        if len(calls) == deadly:
            raise _KilledError
        return evaluate(point, rung)

    worker.evaluator.at = at
    return worker


def shown(out, task):
    """What a study holds, without times."""
    records = prepare(GOALS, Place(task, out)).store.records()
    return [
        (
            record.number,
            record.point_number,
            record.rung,
            record.point,
            record.outcome.model_copy(update={"seconds": 0.0}),
        )
        for record in records
    ]


def test_the_chosen_file_meets_the_goals_and_is_a_normal_run(found):
    out, report = found
    best = Report.from_json((out / "best" / "report.json").read_text(encoding="utf-8"))
    assert report.chosen is not None
    assert best.limits_met
    assert [limit.name for limit in best.limits] == ["metric_drop"]
    assert best.compressed[0].artifact.bytes == report.best_bytes < report.original_bytes
    assert SearchReport.from_json((out / "report.json").read_text(encoding="utf-8")) == report


def test_every_point_has_a_verdict_and_the_frontier_recipes(found):
    out, report = found
    assert all(point.verdict for point in report.points)
    assert report.frontier
    assert {path.stem for path in (out / "frontier").iterdir()} == {str(point.number) for point in report.frontier}


def test_evaluate_is_told_as_unseen_data(found):
    text = (found[0] / "report.md").read_text(encoding="utf-8")
    assert "by `evaluate`, which the search had not seen" in text.replace("\\", "")


def test_a_search_that_is_killed_again_and_again_ends_as_one_that_was_not(found, task, tmp_path):
    out = tmp_path / "killed"
    for deadly in (1, 2, 4):
        with SearchFolder(out, GOALS, task), pytest.raises(_KilledError):
            _dying(prepare(GOALS, Place(task, out)), deadly).work()
    report = search(GOALS, Place(task, out))
    assert shown(out, task) == shown(found[0], task)
    assert report.chosen == found[1].chosen
    assert (out / "best" / "model.onnx").read_bytes() == (found[0] / "best" / "model.onnx").read_bytes()


def test_a_file_that_nothing_can_be_is_refused_before_anything_is_tried(task, tmp_path):
    goals = GOALS.model_copy(update={"max_bytes": 300})
    with pytest.raises(UsageError, match="no file can have 300 B or less"):
        search(goals, Place(task, tmp_path / "impossible"))


def test_goals_that_nothing_meets_give_the_nearest_and_what_each_goal_costs(task, tmp_path):
    goals = GOALS.model_copy(update={"max_drop": 0.0, "max_bytes": 1900, "trials": 4})
    report = search(goals, Place(task, tmp_path / "missed"))
    assert report.chosen is None
    assert {cost.name for cost in report.costs} == {"drop", "bytes"}
    assert not (tmp_path / "missed" / "best").exists()


def test_a_folder_of_another_search_or_of_something_else_is_left_alone(found, task, tmp_path):
    with pytest.raises(OutputError, match="holds a search for other goals"):
        search(GOALS.model_copy(update={"max_drop": 0.5}), Place(task, found[0]))
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(OutputError, match="holds no search"):
        search(GOALS, Place(task, tmp_path))
