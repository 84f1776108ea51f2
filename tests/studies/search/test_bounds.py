"""Goals that need no search, and those that no search can meet, are refused before anything is trained."""

import textwrap

import pytest
import torch

from compressor.errors import UsageError
from compressor.studies.search.bounds import refuse_impossible, refuse_needless
from compressor.studies.search.building import build
from compressor.studies.search.evaluation import Evaluator
from compressor.studies.search.goals import Goals
from compressor.studies.search.study_facts import Decisions, OriginalFile
from compressor.studies.search.subject import Subject
from compressor.task.loading import load
from tests.studies.search.tiny import TASK


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "task.py"
    path.write_text(textwrap.dedent(TASK), encoding="utf-8")
    return Subject(load(str(path)), torch.device("cpu"), 0)


def refused(subject, **goals):
    chosen = Goals.model_validate({"max_drop": 0.03, "trials": 3, **goals})
    refuse_impossible(Evaluator(subject, build(chosen, subject, Decisions())), 1000)


def original(size, milliseconds):
    return OriginalFile(bytes=size, weight_bytes=size // 2, latency_ms=milliseconds, seconds=1.0)


@pytest.mark.slow
def test_bytes_below_the_smallest_weights_and_the_graph_are_refused(subject):
    refused(subject, max_bytes="3KB")
    with pytest.raises(UsageError, match=r"no file can have 1\.05 KB or less") as caught:
        refused(subject, max_bytes=1050)
    assert "raise max_bytes above" in caught.value.hint


@pytest.mark.slow
def test_a_latency_below_half_of_the_fastest_call_of_the_smallest_file_is_refused(subject):
    refused(subject, max_latency="1s")
    with pytest.raises(UsageError, match=r"no file can take 1e-06 ms or less on this machine"):
        refused(subject, max_latency="0.000001ms")


def test_the_smallest_loss_within_goals_that_the_original_meets_is_its_own():
    goals = Goals(max_bytes=5000, max_latency=2.0)
    refuse_needless(goals, original(5001, 1.0))
    refuse_needless(goals, original(5000, 2.1))
    with pytest.raises(UsageError, match=r"the original meets these goals: its file has 5\.00 KB and takes 2 ms"):
        refuse_needless(goals, original(5000, 2.0))
    # the smallest file is still to be found
    refuse_needless(Goals(max_drop=0.01, max_bytes=5000), original(4000, None))
