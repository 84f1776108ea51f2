"""A RecurrentStack is its stack and a linear map, and refuses what needs states."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from compressor.errors import CheckpointError, MethodError
from compressor.nn.graphs.random_graphs import watts_strogatz
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.stack import NoStates, RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent
from tests.tolerances import SAME_FLOAT64

INPUT, OUTPUT, BATCH, TIME = 5, 7, 3, 11
GRAPH = watts_strogatz(11, 4, 1.0, 0)
STACKS = {
    "graph": lambda **options: GraphRecurrent("lstm", INPUT, GRAPH, 2, dtype=torch.float64, **options),
    "dense": lambda **options: UnevenRecurrent("GRU", INPUT, [[13], [13]], dtype=torch.float64, **options),
}


def _module(kind="graph", output=OUTPUT, **options):
    torch.manual_seed(0)
    return RecurrentStack(STACKS[kind](**options), output, dtype=torch.float64)


def _batch():
    return torch.randn(BATCH, TIME, INPUT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_output_and_its_gradients_are_those_of_the_stack_and_a_linear_map(kind, batch_first):
    module = _module(kind, batch_first=batch_first)
    x = (_batch() if batch_first else _batch().transpose(0, 1)).requires_grad_()
    expected = module.stack(x)[0] @ module.readout.weight.T + module.readout.bias
    found = module(x)[0]
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    weight = torch.randn_like(found)
    leaves = [x, *module.parameters()]
    pairs = (torch.autograd.grad((weight * part).sum(), leaves) for part in (found, expected))
    for first, second in zip(*pairs, strict=True):
        torch.testing.assert_close(first, second, **SAME_FLOAT64)


def test_there_is_no_readout_where_the_sizes_are_equal():
    module = _module("dense", 13)
    assert module.readout is None
    assert torch.equal(module(_batch())[0], module.stack(_batch())[0])


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("output", [OUTPUT, 13])
def test_it_is_rebuilt_from_its_record_and_weights_bit_for_bit(kind, output):
    module = _module(kind, output, batch_first=True)
    rebuilt = RecurrentStack.from_record(json.loads(json.dumps(module.record())), dtype=torch.float64)
    rebuilt.load_state_dict(module.state_dict())
    assert torch.equal(rebuilt(_batch())[0], module(_batch())[0])
    assert rebuilt.record() == module.record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stack": "gru"}, "`stack`: Input should be 'graph_recurrent' or 'uneven_recurrent'"),
        ({"record": {}}, "`cell`: Field required"),
        ({"output_size": 0}, "`output_size`: Input should be greater than 0"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        RecurrentStack.from_record(_module().record() | change)
    assert message in str(caught.value)


def test_attributes_are_those_that_models_read():
    module = _module("dense", batch_first=True)
    assert (module.input_size, module.hidden_size, module.num_layers) == (INPUT, OUTPUT, 2)
    assert (module.batch_first, module.bidirectional) == (True, False)
    module.flatten_parameters()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda module: module(_batch(), torch.zeros(2, BATCH, 13)), "gives the layer an initial state"),
        (lambda module: module(pack_sequence(list(_batch()))), "a packed sequence"),
        (lambda module: module(_batch()[0]), "a tensor of 2 axes"),
        (lambda module: nn.functional.linear(module(_batch())[1], torch.eye(3)), "them in `linear`"),
        (lambda module: module(_batch())[1][-1], "part -1"),
        (lambda module: module(_batch())[1].detach(), "their `detach`"),
    ],
)
def test_what_needs_states_is_refused(call, message):
    with pytest.raises(MethodError) as caught:
        call(_module())
    assert message in caught.value.message
    assert caught.value.hint


def test_states_that_are_not_there_can_be_copied_and_printed():
    for copied in (copy.copy(NoStates()), copy.deepcopy(NoStates()), pickle.loads(pickle.dumps(NoStates()))):
        assert isinstance(copied, NoStates)
        assert "NoStates" in repr(copied)
