"""Tasks whose metric is slow, not a number for small models, or takes all of the time."""

import textwrap

import pytest

from compressor.report import Drop
from compressor.studies.search.goals import Goals
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.place import Place
from compressor.studies.search.preparing import prepare
from compressor.studies.search.search import search
from tests.studies.search.tiny import TASK

pytestmark = pytest.mark.slow


class FakeClock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def written(folder, *changes):
    text = textwrap.dedent(TASK)
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "task.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("limit", "full"), [(120, 19.0), (400, 40.0)])
def test_trials_of_a_slow_task_end_in_time_for_the_run_at_the_end(tmp_path, limit, full):
    clock, out = FakeClock(), tmp_path / "out"
    out.mkdir()
    goals = Goals.model_validate({"max_drop": 0.03, "time": f"{limit}s"})
    worker = prepare(goals, Place(written(tmp_path), out), now=clock)

    def at(point, rung):
        seconds = (10.0, 12.0, full)[rung]
        clock.seconds += seconds
        size = 2000 - round(1000 * point["units"])
        return Outcome(drop=Drop(value=0.0), weight_bytes=size, bytes=size if rung == 2 else None, seconds=seconds)

    worker.evaluator.at = at
    worker.work()
    assert clock.seconds + full <= limit
    assert any(record.rung == 2 for record in worker.store.records())
    worker.store.close()


def test_a_time_that_is_over_before_anything_was_tried_is_said_with_what_an_evaluation_takes(tmp_path):
    task = written(
        tmp_path, ("import torch\n", "import time\nimport torch\n"), ("x, y = data(", "time.sleep(0.3); x, y = data(")
    )
    report = search(Goals.model_validate({"max_drop": 0.03, "time": "2s"}), Place(task, tmp_path / "out"))
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert report.chosen is None
    assert "The time was over before a recipe was tried in full: an evaluation of the original takes" in page
    assert "What goals cost" not in page


def test_a_metric_that_is_not_a_number_for_small_models_ends_their_trials_alone(tmp_path):
    mean = "return nan_if_low((forward(x).argmax(1) == y).float().mean())"
    helper = "def nan_if_low(score):\n    return float(score) if score > 0.93 else float('nan')\n\nclass Sign(Task):"
    changes = [("return (forward(x).argmax(1) == y).float()", mean), ("class Sign(Task):", helper)]
    task = written(tmp_path, *changes)
    goals = Goals.model_validate({"max_drop": 0.03, "trials": 6, "use": ["units"]})
    report = search(goals, Place(task, tmp_path / "out"))
    lost = [point.verdict for point in report.points if "is nan" in point.verdict]
    assert lost
    assert all(verdict.startswith("not possible: ") for verdict in lost)
    assert any(point.drop is not None for point in report.points)
