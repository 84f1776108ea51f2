"""States that the user's code makes are cut to the units that a compressed model has left."""

import pytest
import torch

from compressor.surgery.trace.edges import Cut, Edges
from compressor.task.narrowed_states import NarrowedStates
from compressor.testing import RandomTask

KEPT = (0, 2, 3)


def _example(batch, length):
    return torch.randn(batch, length, 3), torch.arange(5.0).expand(1, batch, 5)


@pytest.fixture
def view():
    task = RandomTask({"x": {0: "batch", 1: "time"}, "state": {1: "batch"}}, {"y": {0: "batch"}}, _example)
    structure = [{"kind": "resize"}, Edges(inputs=(Cut(1, 2, 5, KEPT),)).record()]
    return NarrowedStates(task, structure)


def test_states_of_examples_and_batches_have_fewer_units(view):
    for inputs in (view.example(2, 7), next(iter(view.batches(torch.Generator().manual_seed(0))))[0]):
        assert inputs[0].size(2) == 3
        assert inputs[1][0, 0].tolist() == [0.0, 2.0, 3.0]


def test_states_on_their_way_into_forward_are_cut_once(view):
    view.task.evaluate = lambda forward: forward(*_example(2, 7)) + forward(*view.example(2, 7))
    assert view.evaluate(lambda x, state: state.size(2)) == 3 + 3
