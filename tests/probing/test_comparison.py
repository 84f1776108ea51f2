"""Two architectures compared: verdicts, the easier form, results kept for the next time, and what methods convert."""

import json
from dataclasses import replace

import pytest

from compressor.probing.architecture import Conversion, Encoder, named
from compressor.probing.associative_recall import AssociativeRecall
from compressor.probing.comparison import compare, file, judge
from compressor.probing.plans import PLANS, Plan
from compressor.probing.state_tracking import StateTracking
from compressor.probing.training import Effort
from compressor.probing.trainings import LONGER, Training
from compressor.report import Drop, Interval, ProbeFile

STATE = StateTracking(length=11)
NO_MEMORY = Encoder((), 1)
TINY = Plan(tasks=(STATE,), effort=Effort(width=8, steps=4, batch=5, scored=31), seeds=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def conversion(first="gru", second="rnn_tanh"):
    return Conversion(("encoder.rnn",), named(first), named(second))


def drop(low, high):
    return Drop(value=(low + high) / 2, interval=Interval(low=low, high=high))


@pytest.mark.parametrize(
    ("means", "difference", "verdict"),
    [
        ((0.99, 0.25), drop(0.70, 0.78), "lost"),
        ((0.99, 0.98), drop(-0.01, 0.03), "kept"),
        ((0.99, 0.93), drop(0.051, 0.07), "lost"),
        ((0.99, 0.93), drop(0.02, 0.10), "undecided"),
        ((0.99, 0.80), drop(-0.3, 0.7), "undecided"),
        ((0.99, 0.90), Drop(value=0.09), "undecided"),
        ((0.25, 0.99), drop(-0.80, -0.70), "gained"),
        ((0.90, 0.95), drop(-0.07, -0.03), "kept"),
        ((0.26, 0.24), drop(0.01, 0.03), "neither"),
        ((0.39, 0.26), drop(0.10, 0.16), "neither"),
        ((0.41, 0.26), drop(0.10, 0.20), "lost"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_from_chance(means, difference, verdict):
    original, converted = ((mean - 0.01, mean + 0.01) for mean in means)
    assert judge(original, converted, 0.25, difference) == verdict


def test_an_architecture_without_memory_loses_what_a_gru_learns():
    plan = Plan(tasks=(STATE,), effort=Effort(steps=160, scored=256), seeds=2)
    (result,) = compare(Conversion((), named("gru"), NO_MEMORY), plan).results
    assert result.trained.verdict == "lost"
    assert result.trained.original.mean > 0.95
    assert result.trained.converted.mean < 0.35
    assert (result.trained.length, result.longer.length) == (11, 22)
    assert result.steps_converted == (160, 160)
    back = compare(Conversion((), NO_MEMORY, named("gru")), plan)
    assert back.results[0].trained.verdict == "gained"


def test_scores_are_of_each_seed_with_their_mean_and_drop():
    found = compare(conversion(), TINY)
    at = found.results[0].trained
    assert len(at.original.accuracies) == len(at.converted.accuracies) == 2
    assert at.original.mean == pytest.approx(sum(at.original.accuracies) / 2)
    assert at.drop.value == pytest.approx(at.original.mean - at.converted.mean)
    assert at.drop.interval.low <= at.drop.value <= at.drop.interval.high
    assert (found.original, found.converted, found.modules) == ("GRU", "tanh RNN", ("encoder.rnn",))


def test_one_seed_has_no_interval():
    at = compare(conversion(), replace(TINY, seeds=1)).results[0].trained
    assert (at.original.interval, at.drop.interval) == (None, None)


def test_a_task_that_neither_learns_is_tried_in_its_easier_form():
    plan = replace(TINY, tasks=(AssociativeRecall(),))
    hard, easy = compare(conversion(), plan).results
    assert (hard.trained.verdict, hard.trained.length, easy.trained.length) == ("neither", 12, 6)
    assert easy.patience == 3
    assert easy.steps_original == (12, 12)
    assert len(compare(conversion(), replace(plan, easier=False)).results) == 1


def timeless(found):
    return found.model_copy(update={"seconds": 0.0})


def test_the_result_depends_neither_on_processes_nor_on_the_cache():
    found = [
        compare(conversion(), TINY, jobs=jobs, cache=cache)
        for jobs, cache in ((1, False), (2, False), (1, True), (1, True))
    ]
    assert {timeless(part).model_dump_json() for part in found} == {timeless(found[0]).model_dump_json()}


def test_what_was_trained_before_is_read_and_not_trained_again(monkeypatch):
    before = compare(conversion("gru", "lstm"), TINY)
    monkeypatch.setattr(Training, "run", lambda job: pytest.fail(f"{job} was trained again"))
    assert timeless(compare(conversion("gru", "lstm"), TINY)) == timeless(before)
    assert compare(conversion("lstm", "gru"), TINY).results[0].trained.original == before.results[0].trained.converted


def test_a_damaged_result_is_trained_again(tmp_path):
    before = compare(conversion(), TINY)
    for kept in (tmp_path / "cache" / "compressor" / "probe").iterdir():
        kept.write_text('{"accuracy": "much"')
    assert timeless(compare(conversion(), TINY)) == timeless(before)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compare(conversion(), TINY).results


def test_a_job_is_known_by_all_that_its_result_depends_on():
    job = Training(named("gru"), STATE, Effort(), 0)
    others = [
        replace(job, architecture=named("gru", layers=1)),
        replace(job, task=StateTracking(length=13)),
        replace(job, task=AssociativeRecall()),
        replace(job, effort=Effort(lr=1e-2)),
        replace(job, seed=1),
    ]
    assert len({job.key(), *(other.key() for other in others)}) == 6
    assert job.key() == Training(named("gru"), StateTracking(length=11), Effort(), 0).key()


def test_the_file_survives_json():
    written = file([compare(conversion(), TINY)])
    assert ProbeFile.model_validate_json(written.model_dump_json()) == written
    assert json.loads(written.model_dump_json())["probes"][0]["results"][0]["trained"]["verdict"]


@pytest.mark.parametrize("budget", ["rehearsal", "standard", "thorough"])
def test_every_plan_can_be_drawn_at_both_lengths(budget):
    for task in PLANS[budget].tasks:
        assert 0 < task.chance(LONGER * task.length) <= task.chance(task.length) < 0.5
