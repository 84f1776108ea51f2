"""The study: what is begun, finished, lost and done twice, and storages that are not there any more."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from compressor.errors import UsageError
from compressor.recipe.exports import options_of
from compressor.report import Drop
from compressor.studies.search.connection import StorageGoneError, shown
from compressor.studies.search.goals import Goals
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.parts import Removal
from compressor.studies.search.sampling import draw, lost_points
from compressor.studies.search.space import Space
from compressor.studies.search.storage import Store
from compressor.studies.search.study_facts import StudyFacts

GOALS = Goals(max_drop=0.01, exports=(options_of("onnx"),))
SPACE = Space(GOALS, (Removal("units", (("rnn",),), ((8,),), None),), None, ("float32", "int8"), ())
POINT = {"units": 0.5, "units.score": "l2", "precision": "int8"}
DONE = Outcome(drop=Drop(value=0.002), bytes=900, weight_bytes=800, seconds=0.1)


def opened(folder, *, shared=False):
    return Store(f"sqlite:///{folder / 'study.db'}", "search", folder, shared=shared)


def test_a_trial_is_running_then_done_and_another_process_sees_it(tmp_path):
    store = opened(tmp_path)
    number = store.begin(SPACE, POINT, 0, "seed")
    assert [record.state for record in store.records()] == ["running"]
    store.finish(number, DONE)
    (record,) = opened(tmp_path).records()
    assert (record.state, record.point, record.outcome, record.precision) == ("done", POINT, DONE, "int8")


def test_a_recipe_that_cannot_be_carried_out_is_done_too_and_says_why(tmp_path):
    store = opened(tmp_path)
    store.finish(store.begin(SPACE, POINT, 0, "seed"), Outcome(refused="nothing is cut"))
    (record,) = store.records()
    assert (record.state, record.outcome.refused) == ("done", "nothing is cut")


def test_of_two_workers_that_begin_the_same_the_later_gives_way(tmp_path):
    first, second = opened(tmp_path, shared=True), opened(tmp_path, shared=True)
    assert first.begin(SPACE, POINT, 0, "seed") == 0
    assert second.begin(SPACE, POINT, 0, "seed") is None
    assert [record.state for record in first.records()] == ["running", "lost"]
    assert lost_points(first.records()) == []


def test_of_two_workers_that_begin_the_last_point_the_later_gives_way_though_its_point_is_another(tmp_path):
    space = replace(SPACE, goals=SPACE.goals.model_copy(update={"trials": 2}))
    first, second = opened(tmp_path, shared=True), opened(tmp_path, shared=True)
    other, third = POINT | {"units": 0.25}, POINT | {"units": 0.75}
    assert first.begin(space, POINT, 0, "seed") == 0
    assert first.begin(space, other, 0, "seed") == 1
    assert second.begin(space, third, 0, "guided") is None
    assert second.begin(space, POINT, 1, "seed", 0) == 3
    assert second.begin(space, third, 2, "sibling") == 4
    assert lost_points(first.records()) == []


def test_the_trial_of_a_worker_that_is_gone_is_lost_and_its_point_is_tried_again(tmp_path):
    store = opened(tmp_path, shared=True)
    store.begin(SPACE, POINT, 0, "seed")
    store.give_up_stale()
    assert [record.state for record in store.records()] == ["running"]
    _age_heartbeats(tmp_path / "study.db")
    store.give_up_stale()
    (lost,) = lost_points(store.records())
    again = store.begin(SPACE, lost.point, 0, lost.origin, lost.point_number)
    store.finish(again, DONE)
    assert lost_points(store.records()) == []
    assert [record.point_number for record in store.records()] == [0, 0]


def test_a_worker_that_is_killed_before_its_first_sign_of_life_is_noticed_too(tmp_path, monkeypatch):
    store, other = opened(tmp_path, shared=True), opened(tmp_path, shared=True)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store._storage, "record_heartbeat", killed)
        with pytest.raises(KeyboardInterrupt):
            store.begin(SPACE, POINT, 0, "seed")
    now = [100.0]
    monkeypatch.setattr("compressor.studies.search.storage.time.monotonic", lambda: now[0])
    for later, states in ((0.0, ["running"]), (50.0, ["running"]), (20.0, ["lost"])):
        now[0] += later
        other.give_up_stale()
        assert [record.state for record in other.records()] == states
    number = other.begin(SPACE, POINT, 0, "seed")
    other.finish(number, Outcome(drop=Drop(value=0.0)))
    assert [record.state for record in other.records()] == ["lost", "done"]


def _age_heartbeats(path):
    """Let the last signs of life be an hour old."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')")


def test_a_study_file_that_is_removed_is_an_error_and_the_result_is_kept(tmp_path):
    store = opened(tmp_path)
    number = store.begin(SPACE, POINT, 0, "seed")
    moved = (tmp_path / "study.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(StorageGoneError, match="was moved or removed") as caught:
        store.finish(number, DONE)
    assert "is kept in" in caught.value.hint
    moved.rename(tmp_path / "study.db")
    again = opened(tmp_path)
    assert again.save_pending() == 1
    assert [record.outcome for record in again.records()] == [DONE]
    assert again.save_pending() == 0


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql://nobody@127.0.0.1:1/none", "sqlite:////no/such/folder/study.db"]
)
def test_a_storage_that_is_not_there_is_a_usage_error(tmp_path, url):
    with pytest.raises(UsageError, match="there is no storage at"):
        Store(url, "search", tmp_path, shared=True)


def test_passwords_are_not_shown():
    assert shown("postgresql://me:secret@host/study") == "postgresql://me@host/study"


def test_the_same_records_give_the_same_next_point_in_any_process(tmp_path):
    def next_point(_):
        return draw(SPACE, [], [], index=40)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(next_point, range(2))
    assert first == second


@pytest.mark.parametrize(
    "sql",
    [
        "update trials set number = null",
        "update trial_user_attributes set value_json = '7' where key = 'rung'",
        "update trial_user_attributes set value_json = '{\"drop\": 1}' where key = 'outcome'",
        "delete from trial_user_attributes where key = 'rung'",
        "update trial_params set distribution_json = '{}'",
        "update trial_params set param_value = 9e999",
    ],
)
def test_a_study_that_was_tampered_with_is_refused_at_once(tmp_path, sql):
    store = opened(tmp_path)
    store.finish(store.begin(SPACE, POINT, 0, "seed"), DONE)
    store.close()
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute(sql)
    with pytest.raises(UsageError, match="the study is damaged"):
        opened(tmp_path).records()


@pytest.mark.parametrize(("name", "text"), [("x", "{}"), ("99", "{}"), ("0", "[]"), ("0", "[" * 50_000), ("0", "{")])
def test_an_unsaved_result_that_is_none_is_refused_with_what_to_do(tmp_path, name, text):
    store = opened(tmp_path)
    store.begin(SPACE, POINT, 0, "seed")
    (tmp_path / "unsaved").mkdir()
    (tmp_path / "unsaved" / f"{name}.json").write_text(text)
    with pytest.raises(UsageError, match="is no result of this study") as caught:
        store.save_pending()
    assert caught.value.hint == "remove it; its trial is then done again"


@pytest.mark.parametrize(
    "noted",
    [
        {"goals": {"key": "a"}},
        {"goals": 7},
        {"original": {"bytes": -1, "weight_bytes": 1, "latency_ms": None, "seconds": 1.0}},
        {"original": {"bytes": 1, "weight_bytes": 1, "latency_ms": float("nan"), "seconds": 1.0}},
        {"decided": {"batches": "many"}},
        {"more": 1},
    ],
)
def test_facts_that_no_search_notes_are_refused(noted):
    with pytest.raises(UsageError, match="the study is damaged: what it notes"):
        StudyFacts.of(noted)


def test_a_point_of_another_space_is_none_of_this_one():
    assert SPACE.holds(POINT)
    assert not SPACE.holds(POINT | {"more": 1})
    assert not SPACE.holds(POINT | {"units": 7.0})
    assert not SPACE.holds(POINT | {"precision": "int2"})
    assert not SPACE.holds({})
