"""An UnevenRecurrent gives what PyTorch's layer gives with the removed units silenced, in every form of call."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._pytree import tree_leaves

from compressor.errors import CheckpointError, SurgeryError
from compressor.nn.recurrent.layers import cell_of, part_weights, parts
from compressor.nn.recurrent.states import States
from compressor.nn.recurrent.uneven import UnevenRecurrent
from tests.nn.recurrent.modes import MODES
from tests.tolerances import SAME_FLOAT64

INPUT, HIDDEN, BATCH, LENGTH = 5, 7, 3, 11
SHAPES = [
    {"num_layers": layers, "bidirectional": both, "bias": bias}
    for layers, both, bias in [(1, False, True), (1, True, False), (2, True, True), (4, False, True), (3, True, False)]
]


def _module(mode, **options):
    torch.manual_seed(0)
    return MODES[mode](INPUT, HIDDEN, **options).double()


def _masks(module, seed=1):
    """Different units and different numbers of them in every part."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for index, part in enumerate(parts(module)):
        order = torch.randperm(HIDDEN, generator=generator)
        mask = torch.zeros(HIDDEN, dtype=torch.bool)
        mask[order[: 2 + 3 * index % 5]] = True
        masks[part.layer, part.direction] = mask
    return masks


def _silenced(module, masks):
    """A copy in which the units outside the masks are 0 at every step: their rows and biases are."""
    silent = copy.deepcopy(module)
    with torch.no_grad():
        for part in parts(silent):
            rows = masks[part.layer, part.direction].repeat(cell_of(silent).gates.count)
            for weight in part.weights(silent).values():
                weight[~rows] = 0.0
    return silent


def _columns(masks, module):
    """The kept positions of the output."""
    top = module.num_layers - 1
    return torch.cat([mask for (layer, _), mask in masks.items() if layer == top])


def _as_pairs(module, states):
    return states if isinstance(module, nn.LSTM) or isinstance(states, tuple) else (states,)


def _assert_same_states(module, found, expected, masks):
    for ours, theirs in zip(_as_pairs(module, found), _as_pairs(module, expected), strict=True):
        assert len(ours) == len(theirs) == len(masks)
        for part, whole, mask in zip(ours, theirs, masks.values(), strict=True):
            torch.testing.assert_close(part, whole[..., mask], **SAME_FLOAT64)


def _packed():
    x = torch.randn(LENGTH, 5, INPUT, dtype=torch.float64)
    return pack_padded_sequence(x, torch.tensor([3, 11, 1, 7, 3]), enforce_sorted=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_nothing_removed_gives_outputs_states_and_gradients_of_the_original(mode, options):
    module = _module(mode, **options)
    uneven = UnevenRecurrent.from_module(module)
    x = torch.randn(LENGTH, BATCH, INPUT, dtype=torch.float64)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    results = [tree_leaves(layer(own)) for layer, own in zip((module, uneven), inputs, strict=True)]
    for result in results:
        sum(part.square().sum() for part in result).backward()
    torch.testing.assert_close(results[1], results[0], **SAME_FLOAT64)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, **SAME_FLOAT64)
    for part in parts(module):
        ours, theirs = (part_weights(layer, part.layer, part.direction) for layer in (uneven, module))
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name].grad, weight.grad, **SAME_FLOAT64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_removed_units_leave_what_silencing_them_gives(mode, options):
    module = _module(mode, **options)
    masks = _masks(module)
    uneven, silent = UnevenRecurrent.from_module(module, masks), _silenced(module, masks)
    x = torch.randn(LENGTH, BATCH, INPUT, dtype=torch.float64)
    (output, states), (expected, expected_states) = uneven(x), silent(x)
    torch.testing.assert_close(output, expected[..., _columns(masks, module)], **SAME_FLOAT64)
    _assert_same_states(module, states, expected_states, masks)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["batch_first", "unbatched", "packed", "packed, batch_first"])
def test_every_form_of_input_with_initial_states_agrees(mode, form):
    module = _module(mode, num_layers=2, bidirectional=True, batch_first="batch_first" in form)
    masks = _masks(module)
    uneven, silent = UnevenRecurrent.from_module(module, masks), _silenced(module, masks)
    x = _packed() if "packed" in form else torch.randn(*([LENGTH] if form == "unbatched" else [BATCH, LENGTH]), INPUT)
    x = x.double()
    batch = [] if form == "unbatched" else [5] if "packed" in form else [BATCH]
    whole = [torch.randn(4, *batch, HIDDEN, dtype=torch.float64) for _ in range(2)]
    for state in whole:  # a silenced unit must not start with something else than 0
        for part, mask in zip(state, masks.values(), strict=True):
            part[..., ~mask] = 0.0
    parts = [[part[..., mask] for part, mask in zip(state, masks.values(), strict=True)] for state in whole]
    pair = mode == "LSTM"
    output, states = uneven(x, tuple(parts) if pair else parts[0])
    expected, expected_states = silent(x, tuple(whole) if pair else whole[0])
    if "packed" in form:
        assert isinstance(output, PackedSequence)
        assert torch.equal(output.batch_sizes, expected.batch_sizes)
        assert torch.equal(output.unsorted_indices, expected.unsorted_indices)
        output, expected = output.data, expected.data
    torch.testing.assert_close(output, expected[..., _columns(masks, module)], **SAME_FLOAT64)
    _assert_same_states(module, states, expected_states, masks)


def test_a_packed_sequence_of_one_sample_keeps_the_batch_axis_of_its_states():
    module = _module("LSTM", num_layers=1, bidirectional=False)
    x = pack_padded_sequence(torch.randn(LENGTH, 1, INPUT, dtype=torch.float64), torch.tensor([LENGTH]))
    states = UnevenRecurrent.from_module(module, _masks(module))(x)[1]
    assert {tuple(state.shape)[:2] for state in states} == {(1, 1)}


@pytest.mark.parametrize("packed", [False, True])
def test_dropout_in_training_draws_what_pytorch_draws(packed):
    module = _module("GRU", num_layers=3, bidirectional=True, dropout=0.4)
    uneven = UnevenRecurrent.from_module(module)
    x = _packed() if packed else torch.randn(LENGTH, BATCH, INPUT, dtype=torch.float64)
    results = []
    for layer in (module, uneven):
        torch.manual_seed(3)
        output = layer(x)[0]
        results.append(output.data if packed else output)
    torch.testing.assert_close(results[1], results[0], **SAME_FLOAT64)
    output = uneven.eval()(x)[0]
    assert not torch.allclose(output.data if packed else output, results[1])


@pytest.mark.parametrize("mode", ["GRU", "LSTM"])
def test_equal_sizes_take_and_give_stacked_states(mode):
    module = _module(mode, num_layers=2, bidirectional=True)
    masks = {key: torch.arange(HIDDEN) % 3 != key[1] for key in itertools.product(range(2), range(2))}
    masks = {key: mask if int(mask.sum()) == 4 else mask & (torch.arange(HIDDEN) != 6) for key, mask in masks.items()}
    uneven = UnevenRecurrent.from_module(module, masks)
    assert uneven.hidden_size == 4
    x = torch.randn(LENGTH, BATCH, INPUT, dtype=torch.float64)
    states = uneven(x)[1]
    assert all(isinstance(state, torch.Tensor) and state.shape == (4, BATCH, 4) for state in _as_pairs(module, states))
    listed = tuple(list(s) for s in states) if mode == "LSTM" else list(states)
    torch.testing.assert_close(uneven(x, listed)[0], uneven(x, states)[0], **SAME_FLOAT64)


def test_a_sequence_in_two_halves_with_states_handed_over_is_the_whole():
    uneven = UnevenRecurrent("LSTM", INPUT, [[3], [7]], dtype=torch.float64)
    x = torch.randn(LENGTH, BATCH, INPUT, dtype=torch.float64)
    first, states = uneven(x[:4])
    second, _ = uneven(x[4:], tuple(state.detach() for state in states))
    torch.testing.assert_close(torch.cat([first, second]), uneven(x)[0], **SAME_FLOAT64)


def test_states_of_different_sizes_are_read_as_h_n_is():
    parts = [torch.randn(BATCH, size) for size in (2, 3, 5, 7)]
    states = States(parts)
    assert len(states) == 4
    assert states[-1] is parts[3]
    assert [part.shape[-1] for part in states[-2:]] == [5, 7]
    assert torch.equal(states[-1, :, 0], parts[3][:, 0])
    assert [part.shape for part in states[1:3, 0]] == [(3,), (5,)]
    assert torch.cat([states[-2], states[-1]], -1).shape == (BATCH, 12)
    assert states.to(torch.float64)[0].dtype == torch.float64
    assert not isinstance(states, (tuple, list))  # or models would take them for the pair of an LSTM
    assert len(tree_leaves((torch.zeros(1), states))) == 5


def test_states_say_what_to_do_where_one_tensor_is_expected():
    states = States([torch.randn(BATCH, 2), torch.randn(BATCH, 3)])
    with pytest.raises(AttributeError, match=r"have no `view`: .* different sizes \(2, 3\).*`h_n\[-1\]`"):
        states.view(1, 2, -1)


def test_attributes_and_weight_names_are_those_that_models_read():
    uneven = UnevenRecurrent("GRU", INPUT, [[3, 2], [7, 2]], dropout=0.5, batch_first=True)
    assert (uneven.input_size, uneven.num_layers, uneven.bidirectional, uneven.batch_first) == (INPUT, 2, True, True)
    assert (uneven.hidden_size, uneven.mode, uneven.bias, uneven.dropout) == ((3, 2, 7, 2), "GRU", True, 0.5)
    assert uneven.proj_size == 0
    uneven.flatten_parameters()
    shapes = {name: tuple(value.shape) for name, value in uneven.state_dict().items()}
    assert shapes["layers.1.weight_ih_l0"] == (21, 5)
    assert shapes["reverse_layers.0.weight_hh_l0"] == (6, 2)
    assert len(shapes) == 16


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_is_rebuilt_from_its_record_and_weights_bit_for_bit(mode):
    module = _module(mode, num_layers=2, bidirectional=True, batch_first=True, bias=mode != "GRU")
    uneven = UnevenRecurrent.from_module(module, _masks(module)).eval()
    state = torch.random.get_rng_state()
    rebuilt = UnevenRecurrent.from_record(json.loads(json.dumps(uneven.record())), dtype=torch.float64).eval()
    assert torch.equal(torch.random.get_rng_state(), state)
    rebuilt.load_state_dict(uneven.state_dict())
    x = torch.randn(BATCH, LENGTH, INPUT, dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(rebuilt(x)), tree_leaves(uneven(x)), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "QRNN"}, "`mode`: Input should be 'RNN_TANH'"),
        ({"input_size": 0}, "`input_size`: Input should be greater than 0"),
        ({"input_size": True}, "`input_size`: Input should be a valid integer"),
        ({"hidden_sizes": [[3], [2, 1]]}, "every layer has to have the same number of directions"),
        ({"hidden_sizes": []}, "`hidden_sizes`: List should have at least 1 item"),
        ({"hidden_sizes": [[3, 2, 1]]}, "`hidden_sizes.0`: List should have at most 2 items"),
        ({"hidden_sizes": [[1 << 30]]}, "`hidden_sizes.0.0`: Input should be less than"),
        ({"dropout": float("nan")}, "`dropout`"),
        ({"proj_size": 3}, "`proj_size`: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    record = UnevenRecurrent("LSTM", INPUT, [[3], [2]]).record() | change
    with pytest.raises(CheckpointError) as caught:
        UnevenRecurrent.from_record(record)
    assert message in str(caught.value)


def test_a_record_that_is_no_object_or_lacks_a_key_is_refused():
    with pytest.raises(CheckpointError, match="is a list, not an object"):
        UnevenRecurrent.from_record([])
    record = UnevenRecurrent("LSTM", INPUT, [[3]]).record()
    del record["bias"]
    with pytest.raises(CheckpointError, match="`bias`: Field required"):
        UnevenRecurrent.from_record(record)


def test_inputs_are_cut_and_cutting_twice_is_cutting_once():
    module = _module("LSTM", num_layers=2, bidirectional=True)
    first = {key: torch.arange(HIDDEN) != key[0] for key in itertools.product(range(2), range(2))}
    second = {key: torch.arange(6) != 3 + key[1] for key in first}
    inputs = torch.arange(INPUT) != 2
    twice = UnevenRecurrent.from_module(UnevenRecurrent.from_module(module, first), second, inputs=inputs)
    both = {key: first[key].clone().masked_scatter_(first[key], second[key]) for key in first}
    once = UnevenRecurrent.from_module(module, both, inputs=inputs)
    assert once.input_size == 4
    assert once.record() == twice.record()
    assert all(torch.equal(value, twice.state_dict()[name]) for name, value in once.state_dict().items())


def test_frozen_weights_stay_frozen_and_the_original_is_untouched():
    module = _module("GRU").eval()
    module.weight_hh_l0.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    uneven = UnevenRecurrent.from_module(module, {(0, 0): torch.arange(HIDDEN) < 3})
    assert [p.requires_grad for p in uneven.parameters()] == [True, False, True, True]
    assert not uneven.training
    with torch.no_grad():
        uneven.layers[0].weight_ih_l0.zero_()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({(0, 0): torch.ones(HIDDEN, dtype=torch.bool), (3, 0): torch.ones(1)}, r"no layer and direction \[\(3, 0\)\]"),
        ({(0, 0): torch.zeros(HIDDEN, dtype=torch.bool)}, "nothing would be left of layer 0, direction 0"),
        ({(0, 0): torch.ones(3, dtype=torch.bool)}, r"is torch.bool of shape \(3,\); 7 truth values are needed"),
        ({(0, 0): torch.ones(HIDDEN)}, "is torch.float32 of shape"),
    ],
)
def test_masks_that_do_not_fit_are_refused(kept, message):
    with pytest.raises(SurgeryError, match=message):
        UnevenRecurrent.from_module(_module("GRU"), kept)


def test_projections_are_refused():
    with pytest.raises(SurgeryError, match="proj_size=3 cannot have layers of different sizes"):
        UnevenRecurrent.from_module(_module("LSTM", proj_size=3))


@pytest.mark.parametrize(
    ("mode", "hx", "message"),
    [
        ("GRU", torch.zeros(2, BATCH, 3), "one tensor .* different sizes"),
        ("GRU", [torch.zeros(BATCH, 3)], "has 1 parts .* but 2 with 2 axes are needed"),
        ("GRU", [torch.zeros(3), torch.zeros(2)], "but 2 with 2 axes are needed"),
        ("LSTM", (1, 2, 3), "is a pair"),
    ],
)
def test_initial_states_of_the_wrong_form_are_refused(mode, hx, message):
    uneven = UnevenRecurrent(mode, INPUT, [[3], [2]])
    with pytest.raises(ValueError, match=message):
        uneven(torch.zeros(LENGTH, BATCH, INPUT), hx)


def test_an_input_of_four_axes_is_refused():
    with pytest.raises(ValueError, match="has 4 axes"):
        UnevenRecurrent("GRU", INPUT, [[3]])(torch.zeros(1, 1, 1, INPUT))


def test_on_an_accelerator_it_agrees_with_the_cpu(accelerator):
    uneven = UnevenRecurrent("LSTM", INPUT, [[3, 2], [7, 5]], dtype=torch.float64)
    x = _packed()
    expected, states = uneven(x)
    output, cuda_states = uneven.to(accelerator)(x.to(accelerator))
    torch.testing.assert_close(output.data.cpu(), expected.data, atol=1e-9, rtol=0)
    torch.testing.assert_close(tree_leaves(cuda_states)[0].cpu(), tree_leaves(states)[0], atol=1e-9, rtol=0)
