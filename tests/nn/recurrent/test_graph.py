"""A GraphRecurrent gives what whole layers give whose weights are multiplied by the masks of the graph."""

from __future__ import annotations

import itertools
import json
import math
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils._pytree import tree_leaves, tree_map

from compressor.errors import CheckpointError, UsageError
from compressor.formats import Job
from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.random_graphs import barabasi_albert, erdos_renyi, watts_strogatz
from compressor.nn.recurrent.graph import GraphRecurrent, apply_masks
from compressor.nn.recurrent.graph_layout import parameter_count
from compressor.testing import RandomTask
from compressor.training.noise import noise_std
from compressor.training.trainer import Noise, Trainer
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.tolerances import SAME_FLOAT64

INPUT, BATCH, LENGTH = 5, 3, 7
CELLS = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
"""Cell -> number of gates."""
SKIPPING = LayeredGraph(8, ((0, 2), (1, 2), (0, 3), (2, 4), (3, 4), (3, 5), (0, 5), (4, 6), (1, 7), (6, 7), (2, 6)))
SMALL = LayeredGraph(6, ((0, 2), (1, 3), (2, 4), (2, 5), (0, 5)))
"""Layers (0, 1), (2, 3), (4, 5): zeros between the first two, node 3 is not read, the skip pair leaves node 4 out."""
GRAPHS = {
    "skipping": SKIPPING,
    "Barabási–Albert": barabasi_albert(7, 2, 1),
    "Watts–Strogatz": watts_strogatz(7, 4, 1.0, 3),
    "G(n, p)": erdos_renyi(7, 0.3, 2),
    "one node": LayeredGraph(1),
    "no edges": LayeredGraph(3),
}


SKIPS = ["inputs", "layers", "full_layers"]


def _module(cell, graph=SKIPPING, k=2, skips="layers", **options):
    torch.manual_seed(0)
    return GraphRecurrent(cell, INPUT, graph, k, skips=skips, dtype=torch.float64, **options)


def _sequence(batch=BATCH, length=LENGTH):
    return torch.randn(length, batch, INPUT, dtype=torch.float64)


def _states(module, batch=BATCH):
    """Random states of every recurrent layer."""
    parts = [torch.randn(1, batch, layer.recurrent.hidden_size, dtype=torch.float64) for layer in module.all_layers]
    return (parts, [torch.randn_like(part) for part in parts]) if module.cell == "lstm" else parts


def _cells(module):
    """The (source layers, target layer) of every recurrent layer in the order of the states."""
    graph, skips = module.graph, module.skip_edges
    found = sorted({(graph.layer[v], graph.layer[u]) for u, v in graph.edges})
    if skips == "inputs":
        return [
            ((), 0),
            *((tuple(s for t, s in found if t == target), target) for target in range(1, max(graph.layer) + 1)),
        ]
    cells = [((), 0), *(((source,), target) for target, source in found if target - source == 1)]
    extra = [(source, target) for target, source in found if target - source > 1]
    read = {source for source, _ in graph.edges} | set(graph.layers[-1])
    ends = {pair: {v for u, v in graph.edges if (graph.layer[u], graph.layer[v]) == pair} for pair in extra}
    return cells + [((s,), t) for s, t in extra if skips == "full_layers" or ends[s, t] & read]


def reference(module, x, state=None):
    """Whole layers: all nodes of sources and target, all weights, multiplied by masks; missing units are silent.

    A unit with zero weights, biases and state stays at zero in every cell.
    """
    k, graph = module.units_per_node, module.graph
    outputs, last = {}, []
    initial = [None] * len(module.all_layers) if state is None else list(zip(*_kinds(module, state), strict=True))
    cells, edges = _cells(module), set(graph.edges)
    for index in sorted(range(len(cells)), key=lambda index: (cells[index][1], index)):
        sources, target = cells[index]
        nodes = graph.layers[target]
        rows = list(range(k * len(nodes)))
        if not sources:
            mask, columns = torch.ones(k * len(nodes), INPUT, dtype=x.dtype), list(range(INPUT))
        else:
            before = [node for source in sources for node in graph.layers[source]]
            node_mask = torch.tensor([[(u, v) in edges for u in before] for v in nodes], dtype=x.dtype)
            mask = torch.kron(node_mask, torch.ones(k, k, dtype=x.dtype))
            columns = mask.sum(0).nonzero().flatten().tolist()
            if module.skip_edges == "layers" and target - sources[0] > 1:
                rows = mask.sum(1).nonzero().flatten().tolist()
        weights = whole_weights(module.all_layers[index].recurrent, rows, columns, mask)
        zeros = [torch.zeros(x.shape[1], k * len(nodes), dtype=x.dtype) for _ in range(2)]
        given = (
            zeros if initial[index] is None else [spread(part[0], rows, len(zeros[0][0])) for part in initial[index]]
        )
        read = torch.cat([outputs[source] for source in sources], -1) if sources else x
        sequence, h = run(module.cell, read, given, weights)
        last.append((index, [part[None][..., rows] for part in h]))
        outputs[target] = outputs[target] + sequence if target in outputs else sequence
    ordered = [states for _, states in sorted(last, key=lambda item: item[0])]
    kinds = [list(kind) for kind in zip(*ordered, strict=True)]
    return outputs[len(graph.layers) - 1], (kinds[0], kinds[1]) if module.cell == "lstm" else kinds[0]


def _kinds(module, state):
    return state if module.cell == "lstm" else (state, state)


def spread(part, places, width):
    """Columns (..., n) put at `places` of (..., width), zeros elsewhere; differentiable."""
    return torch.zeros(*part.shape[:-1], width, dtype=part.dtype).index_copy(-1, torch.tensor(places), part)


def whole_weights(recurrent, rows, columns, mask):
    """W_ih (G, H, I) masked, W_hh (G, H, H) and biases (G, H) of the whole layer."""
    whole, inputs = mask.shape
    gates = CELLS[recurrent.mode.lower()]
    w_ih, w_hh, b_ih, b_hh = (part.unflatten(0, (gates, len(rows))) for part in recurrent.parameters())
    w_ih = spread(spread(w_ih, columns, inputs).mT, rows, whole).mT * mask
    w_hh = spread(spread(w_hh, rows, whole).mT, rows, whole).mT
    return w_ih, w_hh, spread(b_ih, rows, whole), spread(b_hh, rows, whole)


def run(cell, x, state, weights):
    """The equations of PyTorch's documentation, step by step."""
    w_ih, w_hh, b_ih, b_hh = weights
    h, c = state
    outputs = []
    for step in x:
        i = [step @ w.T + b for w, b in zip(w_ih, b_ih, strict=True)]
        r = [h @ w.T + b for w, b in zip(w_hh, b_hh, strict=True)]
        if cell == "gru":
            reset, update = torch.sigmoid(i[0] + r[0]), torch.sigmoid(i[1] + r[1])
            h = (1 - update) * torch.tanh(i[2] + reset * r[2]) + update * h
        elif cell == "lstm":
            c = torch.sigmoid(i[1] + r[1]) * c + torch.sigmoid(i[0] + r[0]) * torch.tanh(i[2] + r[2])
            h = torch.sigmoid(i[3] + r[3]) * torch.tanh(c)
        else:
            h = {"rnn_tanh": torch.tanh, "rnn_relu": torch.relu}[cell](i[0] + r[0])
        outputs.append(h)
    return torch.stack(outputs), (h, c)


def _with_gradients(module, forward, x, state):
    """Outputs and states, and the gradients of a sum of them for the inputs, the states and the kept weights."""
    x = x.clone().requires_grad_()
    state = tree_map(lambda part: part.clone().requires_grad_(), state)
    leaves = tree_leaves(forward(x, state))
    loss = sum((leaf.square() * (1.0 + index)).sum() for index, leaf in enumerate(leaves))
    names = [name for name, _ in module.named_parameters()]
    found = torch.autograd.grad(loss, [x, *tree_leaves(state), *module.parameters()])
    weights = dict(zip(names, found[-len(names) :], strict=True))
    for name, mask in module.masks().items():
        weights[name] = weights[name] * mask
    return leaves, [*found[: -len(names)], *weights.values()]


def _assert_same(ours, theirs):
    """All tensors at once: a comparison each takes longer than the computation."""
    assert [part.shape for part in ours] == [part.shape for part in theirs]
    together = [torch.cat([part.flatten() for part in parts]) for parts in (ours, theirs)]
    torch.testing.assert_close(*together, **SAME_FLOAT64)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "skips"),
    [
        *itertools.product(GRAPHS, ["layers"]),
        *itertools.product(["skipping", "Watts–Strogatz", "no edges"], ["inputs", "full_layers"]),
    ],
)
def test_outputs_states_and_gradients_are_those_of_masked_whole_layers(cell, k, name, skips):
    module = _module(cell, GRAPHS[name], k, skips)
    for batch, length in ((1, 1), (BATCH, 2)):
        x, state = _sequence(batch, length), _states(module, batch)
        ours, our_gradients = _with_gradients(module, module, x, state)
        theirs, their_gradients = _with_gradients(module, partial(reference, module), x, state)
        _assert_same(ours + our_gradients, theirs + their_gradients)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_any_graph_without_initial_states_agrees_with_masked_whole_layers(data):
    graph = erdos_renyi(data.draw(st.integers(1, 13)), data.draw(st.floats(0, 1)), data.draw(st.integers(0, 1 << 20)))
    cell, k = data.draw(st.sampled_from(list(CELLS))), data.draw(st.integers(1, 3))
    module = _module(cell, graph, k, data.draw(st.sampled_from(SKIPS)))
    x = _sequence(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)))
    torch.testing.assert_close(module(x), reference(module, x), **SAME_FLOAT64)


@pytest.mark.parametrize(("cell", "native"), [("rnn_tanh", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_completely_joined_layers_are_the_stack_of_pytorch(cell, native):
    graph = LayeredGraph(9, tuple((u, v) for u, v in itertools.combinations(range(9), 2) if v // 3 - u // 3 == 1))
    module = _module(cell, graph, 2, batch_first=True)
    stack = native(INPUT, 6, num_layers=3, batch_first=True, dtype=torch.float64)
    for ours, theirs in zip(module.parameters(), stack.parameters(), strict=True):
        theirs.data.copy_(ours)
    x = _sequence(LENGTH, BATCH)
    (output, states), (expected, expected_states) = module(x), stack(x)
    torch.testing.assert_close(output, expected, **SAME_FLOAT64)
    stacked = [torch.cat(kind) for kind in (states if cell == "lstm" else [states])]
    torch.testing.assert_close(stacked, list(expected_states) if cell == "lstm" else [expected_states], **SAME_FLOAT64)
    assert module.masks() == {}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("cuts", [(1,), (3, 4), (1, 2, 3, 4, 5, 6)], ids=str)
def test_a_sequence_chunk_by_chunk_with_states_handed_over_is_the_whole(cell, cuts):
    module, x = _module(cell), _sequence()
    outputs, state = [], None
    for chunk in torch.tensor_split(x, cuts):
        output, state = module(chunk, state)
        outputs.append(output)
    torch.testing.assert_close((torch.cat(outputs), state), module(x), **SAME_FLOAT64)


@pytest.mark.parametrize("cell", CELLS)
def test_batch_first_only_swaps_axes_of_input_and_output(cell):
    module, other = _module(cell), _module(cell, batch_first=True)
    x, state = _sequence(), _states(module)
    output, last = module(x, state)
    swapped, swapped_last = other(x.transpose(0, 1), state)
    assert swapped.shape == (BATCH, LENGTH, other.hidden_size)
    torch.testing.assert_close((swapped.transpose(0, 1), swapped_last), (output, last), **SAME_FLOAT64)


def test_only_nodes_with_an_edge_are_read_and_computed():
    # Layers (0, 1), (2, 3), (4, 5), (6,), (7,); skips 0 -> 2, 1 -> 3, 0 -> 4. The first ends in node 5, unread.
    module = _module("gru", k=3)
    assert SKIPPING.layers == ((0, 1), (2, 3), (4, 5), (6,), (7,))
    sizes = [(layer.recurrent.input_size, layer.recurrent.hidden_size) for layer in module.all_layers]
    assert sizes == [(INPUT, 6), (6, 6), (6, 6), (3, 3), (3, 3), (3, 3), (3, 3)]
    full = [layer.recurrent.hidden_size for layer in _module("gru", k=3, skips="full_layers").skips]
    assert full == [6, 3, 3]
    joined = _module("gru", k=3, skips="inputs")
    sizes = [(layer.recurrent.input_size, layer.recurrent.hidden_size) for layer in joined.all_layers]
    assert sizes == [(INPUT, 6), (6, 6), (9, 6), (6, 3), (6, 3)]


def test_a_skip_that_ends_in_unread_nodes_only_is_left_out_as_if_its_edges_were_not_there():
    without = LayeredGraph(8, tuple(edge for edge in SKIPPING.edges if edge != (0, 5)))
    module, other = _module("lstm"), _module("lstm", without)
    assert [layer.connection.target for layer in module.skips] == [3, 4]
    other.load_state_dict(module.state_dict())
    x = _sequence()
    assert torch.equal(module(x)[0], other(x)[0])


def test_nodes_without_an_edge_in_a_skip_pair_get_nothing_from_its_extra_layer():
    module, full = _module("rnn_tanh", SMALL), _module("rnn_tanh", SMALL, skips="full_layers")
    ones = torch.ones(LENGTH, BATCH, 4, dtype=torch.float64)
    added, _ = module.skips[0]([ones], None)  # 0 -> 5 of layer (4, 5)
    assert not added[..., :2].any()
    assert added[..., 2:].all()
    assert full.skips[0]([ones], None)[0].all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("skips", SKIPS)
def test_parameters_are_as_many_as_the_formula_says(cell, name, skips):
    for k in (1, 2, 3):
        module = _module(cell, GRAPHS[name], k, skips)
        count = parameter_count(GRAPHS[name], cell, INPUT, k, skips=skips)
        assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_the_count_of_a_small_stack_by_hand():
    # Nodes 0, 1 in layer 0, node 2 reads node 1: a GRU of 2 units and one of 1 unit, which reads 1 of 2 outputs.
    assert parameter_count(LayeredGraph(3, ((1, 2),)), "gru", INPUT, 1) == 3 * 2 * (INPUT + 2 + 2) + 3 * (1 + 1 + 2)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "options", [{"skips": "inputs"}, {"skips": "full_layers"}, {"repeated_rows": True, "skips": "full_layers"}], ids=str
)
def test_every_edge_is_one_dense_block_in_every_gate(cell, options):
    for graph, k in itertools.product(GRAPHS.values(), (1, 3)):
        module = _module(cell, graph, k, **options)
        read = [layer.recurrent.weight_ih_l0 for layer in module.all_layers[1:]]
        assert sum(int(weight.count_nonzero()) for weight in read) == CELLS[cell] * k * k * len(graph.edges)


@pytest.mark.parametrize("cell", CELLS)
def test_masks_are_tiled_gate_by_gate_and_repeated_row_by_row_where_asked(cell):
    graph = LayeredGraph(5, ((0, 2), (1, 3), (0, 4), (1, 4)))
    block = np.kron([[1, 0], [0, 1], [1, 1]], np.ones((2, 2))).astype(bool)
    name = "layers.1.recurrent.weight_ih_l0"
    (right,), (wrong,) = (_module(cell, graph, 2, repeated_rows=flag).masks().items() for flag in (False, True))
    assert right[0] == wrong[0] == name
    assert np.array_equal(right[1].numpy(), np.tile(block, (CELLS[cell], 1)))
    assert np.array_equal(wrong[1].numpy(), np.repeat(block, CELLS[cell], axis=0))
    assert np.array_equal(right[1], wrong[1]) == cell.startswith("rnn")


@pytest.mark.parametrize("repeated_rows", [False, True])
def test_masks_fit_their_parameters_and_are_given_only_where_zeros_are_needed(repeated_rows):
    module = _module("lstm", GRAPHS["Watts–Strogatz"], repeated_rows=repeated_rows)
    for name, parameter in module.named_parameters():
        mask = module.masks().get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert mask.shape == parameter.shape
        assert torch.equal(parameter != 0, mask)
    assert all(not mask.all() for mask in module.masks().values())


@pytest.mark.parametrize("cell", CELLS)
def test_initial_weights_are_uniform_within_one_by_the_root_of_the_units(cell):
    module = _module(cell, k=11)
    before = [parameter.clone() for parameter in module.parameters()]
    module.reset_parameters()
    masks = module.masks()
    for layer in module.all_layers:
        bound = 1 / math.sqrt(layer.recurrent.hidden_size)
        assert all(parameter.abs().max() <= bound for parameter in layer.parameters())
        assert layer.recurrent.weight_hh_l0.abs().max() > 0.9 * bound
    for (name, parameter), old in zip(module.named_parameters(), before, strict=True):
        assert not torch.equal(parameter, old)
        assert not parameter[~masks[name]].any() if name in masks else parameter.all()


def test_masks_are_applied_in_every_stack_of_a_model():
    model = nn.Sequential(nn.Linear(3, 5), nn.ModuleDict({"inner": _module("gru")}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1.0)
    apply_masks(model)
    stack = model[1]["inner"]
    zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())
    assert zeros == sum(int((~mask).sum()) for mask in stack.masks().values()) > 0


@pytest.mark.parametrize("cell", CELLS)
def test_training_with_noise_keeps_the_zeros_and_changes_everything_else(cell):
    module = _module(cell, GRAPHS["Watts–Strogatz"])
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    parameters = dict(module.named_parameters())
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    noise = Noise(0.01, 0.55, torch.Generator().manual_seed(0))
    trainer = Trainer(parameters, optimizer, masks=module.masks(), clip=5.0, noise=noise)
    batches = [_sequence() for _ in range(5)]
    trainer.epoch(batches, lambda x: (module(x)[0] - 1).square().mean(), lambda *_: None, number=1)
    assert noise_std(0, 0.01) > 0
    for name, parameter in parameters.items():
        mask = module.masks().get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter != before[name], mask)
        assert not parameter[~mask].any()


@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_is_rebuilt_from_its_record_and_weights_bit_for_bit(cell):
    module = _module(cell, batch_first=True, repeated_rows=True)
    state = torch.random.get_rng_state()
    rebuilt = GraphRecurrent.from_record(json.loads(json.dumps(module.record())), dtype=torch.float64)
    assert torch.equal(torch.random.get_rng_state(), state)
    rebuilt.load_state_dict(module.state_dict())
    x = _sequence()
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(rebuilt(x)), tree_leaves(module(x)), strict=True))
    assert rebuilt.record() == module.record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "GRU"}, "`cell`: Input should be 'rnn_tanh'"),
        ({"input_size": 0}, "`input_size`: Input should be greater than 0"),
        ({"units_per_node": 1 << 30}, "`units_per_node`: Input should be less than"),
        ({"graph": {"nodes": 3, "edges": [[2, 1]]}}, "`graph`: Value error, edge (2, 1)"),
        ({"graph": {"nodes": 1 << 12, "edges": []}, "units_per_node": 1 << 12}, "cannot be allocated"),
        ({"batch_first": 1}, "`batch_first`: Input should be a valid boolean"),
        ({"proj_size": 3}, "`proj_size`: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        GraphRecurrent.from_record(_module("gru").record() | change)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GraphRecurrent("GRU", INPUT, SKIPPING), "hint: cells: rnn_tanh, rnn_relu, gru, lstm"),
        (lambda: GraphRecurrent("gru", 0, SKIPPING), "input_size is 0"),
        (lambda: GraphRecurrent("gru", INPUT, SKIPPING, 0), "units_per_node 0"),
        (lambda: _module("gru")(_sequence()[0]), "a tensor of 2 axes"),
        (lambda: _module("gru")(pack_sequence([_sequence()[:, 0]])), "hint: pad packed sequences"),
        (lambda: _module("gru")(_sequence(), torch.zeros(7, BATCH, 4)), "is not a list of 7 tensors (1, B, H)"),
        (lambda: _module("gru")(_sequence(), _states(_module("gru"))[1:]), "is not a list of 7 tensors"),
        (lambda: _module("lstm")(_sequence(), _states(_module("gru"))), "is not a pair (h, c) of lists of 7 tensors"),
    ],
)
def test_calls_that_cannot_be_meant_are_refused(call, message):
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)


def test_attributes_are_those_that_models_read():
    module = _module("lstm", k=3, batch_first=True)
    assert (module.input_size, module.hidden_size, module.num_layers) == (INPUT, 3, 5)
    assert (module.batch_first, module.bidirectional) == (True, False)
    module.flatten_parameters()
    assert "skip_pairs=[(0, 2), (1, 3), (0, 4)]" in repr(module)


class Streaming(nn.Module):
    """A stack with flat tensors for states, as a file has them."""

    def __init__(self, cell, skips):
        super().__init__()
        self.stack = GraphRecurrent(cell, INPUT, SMALL, 2, skips=skips, batch_first=True)

    def forward(self, features, *states):
        half = len(states) // 2
        given = (list(states[:half]), list(states[half:])) if self.stack.cell == "lstm" else list(states)
        output, last = self.stack(features, given)
        return output, *tree_leaves(last)


@pytest.mark.parametrize(
    ("cell", "node", "skips", "joins"),
    [
        ("rnn_tanh", "RNN", "layers", {"Add", "Pad"}),
        ("gru", "GRU", "layers", {"Add", "Pad"}),
        ("lstm", "LSTM", "layers", {"Add", "Pad"}),
        ("gru", "GRU", "inputs", {"Concat"}),
    ],
)
def test_an_exported_file_agrees_at_an_unseen_size_with_native_nodes_and_without_masks(
    tmp_path, cell, node, skips, joins
):
    torch.manual_seed(0)
    model, path = Streaming(cell, skips).eval(), tmp_path / "model.onnx"
    sizes = [layer.recurrent.hidden_size for layer in model.stack.all_layers] * (2 if cell == "lstm" else 1)
    axes = {f"state_{index}": {1: "batch"} for index in range(len(sizes))}
    timed = {0: "batch", 1: "time"}
    task = RandomTask(
        {"features": timed} | axes,
        {"output": timed} | {f"last_{name}": names for name, names in axes.items()},
        lambda batch, length: (torch.randn(batch, length, INPUT), *(torch.randn(1, batch, size) for size in sizes)),
    )
    artifact = export(Job(model, task, path, Options()))
    inputs = task.example(7, 23)
    assert_agrees(path, model, *inputs)
    assert artifact.operators[node] == len(model.stack.all_layers)
    assert set(artifact.operators) == {node, "Gather", "Squeeze", "Transpose"} | joins
    tensors = [onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]
    weights = sum(tensor.size for tensor in tensors if tensor.dtype == np.float32)
    assert weights == parameter_count(SMALL, cell, INPUT, 2, skips=skips)


def test_on_an_accelerator_it_agrees_with_the_cpu(accelerator):
    module, x = _module("lstm"), _sequence()
    expected = module(x)
    found = tree_map(lambda part: part.cpu(), module.to(accelerator)(x.to(accelerator)))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
