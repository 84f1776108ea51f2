"""How files are timed, on made-up files that tell when they are loaded and run."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.measure import latency
from compressor.measure.latency import FEWEST_ROUNDS, WARMUP_RUNS, plan, summary


class Timed:
    """A file that takes a number of milliseconds that is its name, and a bit more in each further run of a burst."""

    runtime = "made up"

    def __init__(self, path, threads, log):
        self.name, self.threads, self.log = path.stem, threads, log

    def reload(self):
        self.log.append(("load", self.name))

    def feed(self, inputs):
        return [part.sum().item() for part in inputs]

    def burst(self, feed, *, runs, warmup):
        self.log.append(("run", self.name, feed, runs, warmup))
        return [float(self.name) * (1 + 0.25 * run) for run in range(runs)]

    def close(self):
        self.log.append(("close", self.name))


@pytest.fixture
def compare(monkeypatch):
    """Compare files of these names; also gives what happened."""

    def run(*names, rounds=12, runs=3, **options):
        log = []
        monkeypatch.setattr(latency, "open_file", lambda path, threads: Timed(path, threads, log))
        inputs = [[torch.full((2,), float(name))] for name in names]
        found = latency.compare(
            [Path(f"{name}.onnx") for name in names], inputs, batch=2, length=7, rounds=rounds, runs=runs, **options
        )
        return *found, log

    return run


def rounds_of(log, names):
    """What happened after the rehearsal, cut into rounds, without the closing."""
    timed = log[2 * len(names) : -len(names)]
    return [timed[start : start + 2 * len(names)] for start in range(0, len(timed), 2 * len(names))]


def test_each_round_loads_all_files_then_times_each_once_in_one_order(compare):
    names = ("1", "2", "4")
    *_, log = compare(*names)
    rounds = rounds_of(log, names)
    assert len(rounds) == 12
    for events in rounds:
        loaded = [name for what, name, *_ in events[:3] if what == "load"]
        timed = [event[1] for event in events[3:] if event[0] == "run"]
        assert loaded == timed
        assert sorted(loaded) == sorted(names)
        assert all(event[2:] == ([2 * float(event[1])], 3, WARMUP_RUNS) for event in events[3:])
    assert log[-3:] == [("close", name) for name in names]


def test_orders_are_drawn_anew_in_each_round_from_the_seed(compare):
    def orders(seed):
        *_, log = compare("1", "2", "4", rounds=30, seed=seed)
        return [tuple(name for _, name, *_ in events[:3]) for events in rounds_of(log, "124")]

    assert set(orders(0)) == set(itertools.permutations("124"))
    assert orders(3) == orders(3) != orders(4)
    *_, log = compare("1", "2")
    assert rounds_of(log, "12")[0] == rounds_of(compare("1", "2", seed=0)[-1], "12")[0]


def test_quantiles_and_ratios_are_those_of_all_runs_and_of_the_medians_of_rounds(compare):
    found, ratios, _ = compare("1", "2", "4", threads=3)
    for name, item in zip((1, 2, 4), found, strict=True):
        assert (item.p10, item.p50, item.p90) == (name, 1.25 * name, 1.5 * name)
        assert (item.runs, item.warmup, item.batch, item.length) == (36, WARMUP_RUNS, 2, 7)
        assert (item.threads, item.runtime) == (3, "made up")
    assert [ratio.ratio for ratio in ratios] == [0.5, 0.25]


@pytest.mark.parametrize(("baselines", "ratios"), [((), [0.5, 0.25, 0.125]), ((0, 0, 2, 2), [0.5, 0.5])])
def test_each_file_is_compared_with_its_own_baseline(compare, baselines, ratios):
    _, found, _ = compare("1", "2", "4", "8", baselines=baselines)
    assert [ratio.ratio for ratio in found] == ratios
    assert {ratio.interval.confidence for ratio in found} == {latency.CONFIDENCE}


def test_files_are_rehearsed_before_it_is_planned_how_much_is_timed(compare, monkeypatch):
    clock = itertools.count(0.0, 0.5)  # so each load takes half a second
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    asked = []
    monkeypatch.setattr(latency, "plan", lambda **wish: asked.append(wish) or plan(**wish))
    *_, log = compare("1", "2", "4", max_seconds=100.0)
    (wish,) = asked
    assert wish == {
        "load_seconds": 1.5, "run_seconds": pytest.approx(0.007), "rounds": 12, "runs": 3, "max_seconds": 100.0
    }  # fmt: skip
    first = [("load", "1"), ("run", "1", [2.0], 2, 0)]
    assert log[:2] == first
    assert [event[0] for event in log[:6]] == ["load", "run"] * 3


def test_files_are_closed_if_one_fails(compare, monkeypatch):
    closed = []
    monkeypatch.setattr(Timed, "close", lambda self: closed.append(self.name))
    monkeypatch.setattr(Timed, "feed", lambda self, inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare("1", "2")
    assert closed == ["1", "2"]


def test_the_fewest_rounds_and_runs_are_taken(compare):
    found, _, _ = compare("1", rounds=FEWEST_ROUNDS, runs=1)
    assert found[0].runs == FEWEST_ROUNDS


@settings(deadline=None)
@given(load=st.floats(0, 3), run=st.floats(1e-6, 3), rounds=st.integers(6, 100), runs=st.integers(1, 100))
def test_a_plan_gives_up_no_more_than_it_must(load, run, rounds, runs):
    chosen = plan(load_seconds=load, run_seconds=run, rounds=rounds, runs=runs, max_seconds=60)

    def seconds(rounds, runs, warmup):
        return rounds * (load + (warmup + runs) * run)

    if chosen.rounds < rounds:
        more = max(chosen.rounds + 1, FEWEST_ROUNDS)
        assert seconds(more, chosen.runs, chosen.warmup) > 60 * (1 - 1e-9)
    if chosen.runs < runs:
        assert chosen.warmup == 1
        before = min(runs, 2 * chosen.runs + 1)  # runs are halved
        assert seconds(FEWEST_ROUNDS, before, WARMUP_RUNS) > 60 * (1 - 1e-9)
    else:
        assert chosen.warmup == WARMUP_RUNS


@pytest.mark.parametrize("count", [1, 7, 199, 200, 201, 400, 401, 1500])
def test_kept_timings_are_evenly_spaced_by_rank_and_centred(count):
    timings = np.random.default_rng(count).permutation(count).astype(float)  # so a timing is its rank
    item = summary([timings.tolist()], warmup=1, batch=1, length=1, threads=1, runtime="")
    ranks = list(item.samples)
    step = -(-count // 200)
    assert len(ranks) == pytest.approx(count / step, abs=1)
    assert len(ranks) <= 200
    assert all(later - earlier == step for earlier, later in itertools.pairwise(ranks))
    assert ranks[0] == step // 2
    assert (item.p10, item.p50, item.p90) == pytest.approx(tuple(np.quantile(timings, [0.1, 0.5, 0.9])))


def test_kept_timings_are_rounded_to_nanoseconds():
    item = summary([[1.23456789], [2.0]], warmup=1, batch=1, length=1, threads=1, runtime="")
    assert item.samples == (1.234568, 2.0)


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_while_files_are_timed_and_it_is_set_back(compare, monkeypatch, enabled):
    import gc

    seen = []
    monkeypatch.setattr(Timed, "reload", lambda self: seen.append(gc.isenabled()))
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        compare("1", "2")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert not any(seen[2:])
