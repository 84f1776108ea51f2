"""A study of random graphs: its rows, resumed where it stopped, and kept when it is interrupted."""

from __future__ import annotations

import contextlib

import pytest

from compressor.errors import MethodError, OutputError
from compressor.studies.graphs.facts import Results
from compressor.studies.graphs.study import study
from tests.studies.graphs.conftest import options, timeless


def test_there_is_a_row_for_each_graph_of_each_kind_and_the_file_holds_them(done):
    path, results = done
    assert [(row.kind, row.index) for row in results.rows] == [("ws", 0), ("ws", 1), ("ba", 0), ("ba", 1)]
    assert Results.model_validate_json(path.read_bytes()) == results


def test_a_study_goes_on_where_it_stopped(done, task, tmp_path):
    _, results = done
    kept = results.model_copy(update={"rows": (results.rows[0].model_copy(update={"seconds": -1.0}), results.rows[3])})
    path = tmp_path / "results.json"
    path.write_text(kept.model_dump_json())
    again = study(options(task), path)
    assert again.rows[0].seconds == -1.0
    assert again.rows[3] == results.rows[3]
    assert timeless(again.rows) == timeless(results.rows)


class Interrupted:
    """Progress that somebody interrupts after the first graph."""

    def bar(self, description, total):
        return contextlib.nullcontext(self)

    def advance(self, amount=1, note=""):
        if note:
            raise KeyboardInterrupt


def test_what_is_done_is_kept_when_a_study_is_interrupted(done, task, tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(KeyboardInterrupt):
        study(options(task), path, progress=Interrupted())
    assert timeless(Results.model_validate_json(path.read_bytes()).rows) == timeless(done[1].rows[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 3}, "has results of other arguments: count 2, here 3\nhint: repeat its arguments"),
        ({"kinds": ("ba",), "seed": 7}, "kinds ('ws', 'ba'), here ('ba',); seed 0, here 7"),
    ],
)
def test_a_file_of_other_arguments_is_refused_and_kept(done, task, change, message):
    path, _ = done
    before = path.read_bytes()
    with pytest.raises(OutputError) as caught:
        study(options(task, **change), path)
    assert message in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_that_is_no_results_is_refused_and_kept(task, tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(OutputError, match="is there and is not a results file"):
        study(options(task), path)
    assert path.read_text() == "{}"


def test_a_target_that_is_not_there_is_refused_before_any_training(task, tmp_path):
    with pytest.raises(MethodError, match="`target: lstm` fits 0 recurrent layers"):
        study(options(task, target="lstm"), tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []
