import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compressor.errors import ExportError, UsageError
from compressor.measure import latency
from compressor.measure.latency import FEWEST_ROUNDS, Plan, plan
from tests.progress import Recorder


@pytest.fixture
def heavy(write):
    """The same call as `linear`, with many times the work."""
    nodes, previous = [], "x"
    for index in range(60):
        nodes.append(helper.make_node("MatMul", [previous, "square"], [f"h{index}"]))
        previous = f"h{index}"
    nodes.append(helper.make_node("MatMul", [previous, "W"], ["y"]))
    weights = {"square": np.eye(5, dtype=np.float32), "W": np.ones((5, 3), np.float32)}
    return write(nodes, {"x": ["batch", 5]}, {"y": ["batch", 3]}, weights, name="heavy")


def test_every_file_is_timed_and_all_but_the_first_compared(heavy, linear):
    found, ratios = latency.compare(
        [heavy, linear, heavy], [[torch.randn(1, 5)]] * 3, batch=1, length=5, rounds=7, runs=5
    )
    assert len(found) == 3
    assert len(ratios) == 2
    assert ratios[0].ratio > 1  # 61 products against one
    assert not ratios[0].within_noise
    for item in found:
        assert 0 < item.p10 <= item.p50 <= item.p90
        assert (item.runs, item.batch, item.length, item.threads) == (35, 1, 5, 1)
        assert item.runtime.startswith("ONNX Runtime ")


def test_a_single_file_is_timed_without_a_comparison(linear):
    found, ratios = latency.compare([linear], [[torch.randn(2, 5)]], batch=2, length=5, rounds=6, runs=2)
    assert len(found) == 1
    assert ratios == []


def test_kept_timings_are_few_and_span_the_distribution(linear):
    (item,), _ = latency.compare([linear], [[torch.randn(1, 5)]], batch=1, length=5, rounds=30, runs=50)
    assert item.runs == 1500
    assert 100 <= len(item.samples) <= 200
    assert list(item.samples) == sorted(item.samples)
    assert item.samples[len(item.samples) // 2] == pytest.approx(item.p50, rel=0.05)


def test_progress_is_told_of_every_round(linear):
    progress = Recorder()
    latency.compare([linear], [[torch.randn(1, 5)]], batch=1, length=5, rounds=9, runs=1, progress=progress)
    (bar,) = progress.bars
    assert bar.done == bar.total == 9


def test_the_garbage_collector_runs_again_afterwards(linear, tmp_path):
    latency.compare([linear], [[torch.randn(1, 5)]], batch=1, length=5, rounds=6, runs=1)
    assert gc.isenabled()
    with pytest.raises(ExportError):
        latency.compare([tmp_path / "gone.onnx"], [[torch.randn(1, 5)]], batch=1, length=5)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rounds": 5}, "rounds is 5"), ({"runs": 0}, "runs is 0")],
)
def test_too_little_timing_for_an_interval_is_refused(linear, arguments, message):
    with pytest.raises(UsageError, match=message):
        latency.compare([linear], [[torch.randn(1, 5)]], batch=1, length=5, **arguments)


def test_no_file_is_refused():
    with pytest.raises(UsageError, match="no file to time"):
        latency.compare([], [], batch=1, length=1)


def test_a_wish_that_fits_is_granted():
    chosen = plan(load_seconds=0.01, run_seconds=0.001, rounds=40, runs=10, max_seconds=60)
    assert chosen == Plan(rounds=40, runs=10, warmup=latency.WARMUP_RUNS)


def test_rounds_are_given_up_before_runs():
    assert plan(load_seconds=0.0, run_seconds=0.1, rounds=40, runs=10, max_seconds=26) == Plan(20, 10, 3)


def test_the_slowest_model_still_gets_enough_rounds_for_an_interval():
    assert plan(load_seconds=1.0, run_seconds=30.0, rounds=40, runs=10, max_seconds=60) == Plan(FEWEST_ROUNDS, 1, 1)


@settings(deadline=None)
@given(load=st.floats(0, 3), run=st.floats(1e-6, 3), rounds=st.integers(6, 100), runs=st.integers(1, 100))
def test_a_plan_keeps_the_time_or_is_the_least(load, run, rounds, runs):
    chosen = plan(load_seconds=load, run_seconds=run, rounds=rounds, runs=runs, max_seconds=60)
    seconds = chosen.rounds * (load + (chosen.warmup + chosen.runs) * run)
    assert FEWEST_ROUNDS <= chosen.rounds <= rounds
    assert 1 <= chosen.runs <= runs
    assert seconds <= 60 * (1 + 1e-9) or (chosen.rounds, chosen.runs) == (FEWEST_ROUNDS, 1)
