"""Units are removed without a trace in the outputs, or the step refuses and the model is untouched."""

import copy

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from compressor.nn.recurrent.layers import recurrent_modules
from compressor.surgery.units import removal
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.surgery.units.resize import resized_copy
from compressor.surgery.units.scores import magnitude
from compressor.testing import silence_units
from tests.surgery.rebuilding import rebuilt_from
from tests.surgery.topologies import (
    CELL_KINDS,
    CELLS,
    HIDDEN,
    INPUT,
    REFUSED,
    SUPPORTED,
    Bidirectional,
    BothLastStates,
    CellLoop,
    GatedConvolution,
    GatherByLength,
    ImageFront,
    LayerNormBehind,
    Packed,
    Projected,
    Stacked,
    Streaming,
    TwoModules,
)

DEAD = 4


def _inputs(*shapes):
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(batch, length, INPUT, generator=generator, dtype=torch.float64),
            torch.randint(1, length + 1, (batch,), generator=generator).index_fill(0, torch.tensor([0]), length),
        )
        for batch, length in shapes
    ]


def _model(topology, cell):
    torch.manual_seed(0)
    return topology(CELLS[cell]).double().eval()


NOT_ZERO = {
    "LearnedState", "Residual", "BatchNormBehind", "StateFromLinear", "Embedded", "Gated", "LayerNormBehind",
    "EncoderLayerBehind",
}  # fmt: skip
"""Where dead rows alone do not make a unit 0: something is added to it, or makes a value of 0."""
TIED = {"SummedDirections", "SummedView", "HandOver", "AttentionDecoder"}
"""Where the layers' units go together, the same ones must be dead in each."""


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("topology", SUPPORTED, ids=lambda t: t.__name__)
def test_removed_units_leave_the_outputs_of_zeroed_ones(topology, cell):
    model = _model(topology, cell)
    names = list(recurrent_modules(model))
    result = prune(model, {}, _inputs((2, 3), (5, 7)), names=names, amount=Amount(count=DEAD))
    assert all(m.hidden_size == recurrent_modules(model)[n].hidden_size - DEAD
               for n, m in recurrent_modules(result.model).items())  # fmt: skip
    reference = copy.deepcopy(model)
    rebuilt = rebuilt_from(result, _model(topology, cell))
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in reference.parameters())
    for inputs in _inputs((1, 1), (3, 11)):
        assert torch.equal(rebuilt(*inputs), result.model(*inputs))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "topology",
    [t for t in SUPPORTED if t.__name__ not in NOT_ZERO],
    ids=lambda t: t.__name__,
)
def test_dead_units_go_and_nothing_changes(topology, cell):
    model = _model(topology, cell)
    silence_units(model, DEAD, seed=1, same=topology.__name__ in TIED)
    result = prune(
        model, {}, _inputs((2, 3)), names=list(recurrent_modules(model)), amount=Amount(count=DEAD), scorer=magnitude(1)
    )
    for inputs in _inputs((1, 1), (2, 3), (5, 17)):
        torch.testing.assert_close(result.model(*inputs), model(*inputs), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("topology", "message"), REFUSED.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_what_cannot_be_followed_is_refused_and_the_model_untouched(topology, message):
    model = _model(topology, "gru")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(SurgeryError) as caught:
        prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(ratio=0.5))
    assert message in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"ratio": 0.5}, 7), ({"ratio": 0.3}, 10), ({"ratio": 0.99}, 1), ({"count": 12}, 1),
        ({"ratio": 0.5, "round_to": 4}, 8), ({"ratio": 0.7, "round_to": 8}, 8),
    ],
)  # fmt: skip
def test_exactly_the_asked_number_goes(options, kept):
    model = _model(GatherByLength, "gru")
    assert prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(**options)).model.rnn.hidden_size == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 13}, "this would leave no unit in layer 0 of `rnn`, which has 13"),
        ({"ratio": 0.01}, "no unit would go from layer 0 of `rnn`, which has 13"),
        ({"ratio": 0.1, "round_to": 16}, "(kept units are rounded up to a multiple of 16)"),
    ],
)
def test_a_number_that_removes_all_or_nothing_is_refused(options, message):
    with pytest.raises(SurgeryError) as caught:
        prune(_model(GatherByLength, "gru"), {}, _inputs((2, 3)), names=["rnn"], amount=Amount(**options))
    assert message in str(caught.value)


@pytest.mark.parametrize("power", [1, 2])
def test_the_units_with_the_smallest_weights_over_gates_and_consumers_go(power):
    model = _model(GatherByLength, "lstm")
    rows = torch.cat([model.rnn.weight_ih_l0, model.rnn.weight_hh_l0], 1).abs().pow(power).sum(1).view(4, HIDDEN)
    columns = torch.cat([model.rnn.weight_hh_l0, model.head.weight]).abs().pow(power).sum(0)
    expected = (rows.sum(0) + columns).argsort()[DEAD:].sort().values
    result = prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(count=DEAD), scorer=magnitude(power)).model
    assert torch.equal(result.head.weight, model.head.weight[:, expected])


def test_masks_are_cut_along():
    model = _model(TwoModules, "gru")
    masks = {name: torch.rand(p.shape) > 0.5 for name, p in model.named_parameters() if "weight" in name}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    result = prune(model, masks, _inputs((2, 3)), names=["rnn", "second"], amount=Amount(ratio=0.5))
    for name, mask in result.masks.items():
        parameter = result.model.get_parameter(name)
        assert parameter.shape == mask.shape
        assert not parameter[~mask].any()


def test_only_the_named_modules_lose_units():
    result = prune(_model(TwoModules, "lstm"), {}, _inputs((2, 3)), names=["second"], amount=Amount(ratio=0.5))
    assert (result.model.rnn.hidden_size, result.model.second.hidden_size) == (11, 7)


@pytest.mark.parametrize("cell", CELL_KINDS)
def test_a_loop_over_a_cell_loses_units_too(cell):
    torch.manual_seed(0)
    model = CellLoop(CELL_KINDS[cell]).double().eval()
    result = prune(model, {}, _inputs((2, 3), (5, 7)), names=["rnn"], amount=Amount(ratio=0.5)).model
    assert (result.rnn.hidden_size, result.head.in_features) == (7, 7)


def test_channels_and_features_go_where_they_are_named():
    model = _model(ImageFront, "lstm")
    names = ["first", "second", "rnn"]
    result = prune(model, {}, _inputs((2, 3), (5, 7)), names=names, amount=Amount(ratio=0.5)).model
    assert (result.first.out_channels, result.depthwise.groups, result.second.in_channels) == (4, 4, 4)
    assert (result.second.out_channels, result.rnn.input_size, result.rnn.hidden_size) == (2, 10, 7)


@pytest.mark.parametrize(
    ("amount", "left"),
    [
        (Amount(ratio=0.5), 8),
        (Amount(count=5), 10),
        (Amount(ratio=0.9), 2),
        (Amount(ratio=0.5, round_to=3), 12),
        (Amount(ratio=0.5, scope="global"), None),
        (Amount(ratio=0.5, scope="global", round_to=3), None),
    ],
)
def test_channels_go_together_with_those_that_gate_them(amount, left):
    model = _model(GatedConvolution, "gru")
    result = prune(model, {}, _inputs((2, 3), (5, 7)), names=["conv", "rnn"], amount=amount).model
    assert result.conv.out_channels == 2 * result.rnn.input_size < 14
    assert result.conv.out_channels % amount.round_to == 0
    if left is None:
        assert result.conv.out_channels + result.rnn.hidden_size < 2 * 7 + HIDDEN
    else:
        assert result.conv.out_channels == left


class OverUnits(nn.Module):
    """Something that takes all units of a layer together, after a function."""

    def __init__(self, function, over):
        super().__init__()
        self.rnn, self.head = nn.GRU(INPUT, HIDDEN, batch_first=True), nn.Linear(1, 3)
        self.function, self.over = function, over

    def forward(self, x, lengths):
        return self.head(self.over(self.function(self.rnn(x)[0])))


@pytest.mark.parametrize(
    "over",
    [
        lambda y: y.sum(-1, keepdim=True),
        lambda y: torch.linalg.vector_norm(y, dim=-1, keepdim=True),
        lambda y: y.sum().view(1, 1),
    ],
    ids=["sum", "norm", "sum of everything"],
)
def test_units_are_followed_into_sums_over_them(over):
    torch.manual_seed(0)
    model = OverUnits(torch.tanh, over).double().eval()
    result = prune(model, {}, _inputs((2, 3), (5, 7)), names=["rnn"], amount=Amount(ratio=0.5)).model
    assert result.rnn.hidden_size == 7
    shifted = OverUnits(torch.sigmoid, over).double().eval()
    with pytest.raises(SurgeryError, match=r"`aten::[\w.]+` at test_removal.py:\d+ sums it and others"):
        prune(shifted, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(ratio=0.5))


def test_the_mean_over_units_depends_on_their_number():
    torch.manual_seed(0)
    model = OverUnits(torch.tanh, lambda y: y.mean(-1, keepdim=True)).double().eval()
    with pytest.raises(SurgeryError, match="reduces across it and others"):
        prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(ratio=0.5))


def test_what_cannot_shrink_is_skipped_with_its_reason_unless_required():
    model = _model(GatherByLength, "gru")
    result = prune(model, {}, _inputs((2, 3)), names=["rnn", "head"], amount=Amount(ratio=0.5), required=["rnn"])
    assert [(skip.name, skip.reason) for skip in result.skipped] == [
        ("head", "it is part of the model's output 0, whose size would change")
    ]
    with pytest.raises(SurgeryError, match="units of `head` cannot be removed: it is part of the model's output"):
        prune(model, {}, _inputs((2, 3)), names=["rnn", "head"], amount=Amount(ratio=0.5))


def test_one_ranking_over_all_layers_takes_more_from_the_weaker_one():
    model = _model(TwoModules, "gru")
    with torch.no_grad():
        model.second.weight_ih_l0[: 3 * HIDDEN : 2] *= 1e-3
    amount = Amount(ratio=0.5, scope="global", round_to=2)
    result = prune(model, {}, _inputs((2, 3)), names=["rnn", "second"], amount=amount).model
    assert result.rnn.hidden_size % 2 == result.second.hidden_size % 2 == 0
    assert result.rnn.hidden_size + result.second.hidden_size <= 14


def test_an_uncalled_module_is_refused():
    model = _model(TwoModules, "gru")
    model.spare = nn.GRU(3, 5).double()
    with pytest.raises(SurgeryError, match="`spare` is not called"):
        prune(model, {}, _inputs((2, 3)), names=["spare"], amount=Amount(ratio=0.5))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("topology", [Bidirectional, BothLastStates, Stacked, Packed], ids=lambda t: t.__name__)
def test_layers_and_directions_may_end_with_different_sizes(topology, cell):
    model = _model(topology, cell)
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            if "l0" in name and "reverse" not in name:
                parameter.mul_(0.2)
    amount = Amount(ratio=0.5, scope="global")
    masks = {"rnn.weight_hh_l0": torch.rand(model.rnn.weight_hh_l0.shape) > 0.3}
    with torch.no_grad():
        model.rnn.weight_hh_l0 *= masks["rnn.weight_hh_l0"]
    result = prune(model, masks, _inputs((2, 3), (5, 7)), names=["rnn"], amount=amount)
    rebuilt = rebuilt_from(result, _model(topology, cell))
    for inputs in _inputs((1, 1), (3, 11)):
        assert torch.equal(rebuilt(*inputs), result.model(*inputs))
    for name, mask in result.masks.items():
        assert not result.model.get_parameter(name)[~mask].any()
    if topology in (Bidirectional, BothLastStates, Stacked):
        sizes = [part.hidden_size for part in result.model.rnn.modules() if isinstance(part, nn.RNNBase)]
        assert len(set(sizes)) > 1


class TransposedStates(Bidirectional):
    head_inputs = 2 * HIDDEN

    def join(self, x, lengths):
        states = self.rnn(x)[1][-2:]
        return states.transpose(0, 1).flatten(1)


def test_sizes_that_the_model_cannot_live_with_are_refused_with_the_remedy():
    model = _model(TransposedStates, "gru")
    result = prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(ratio=0.5)).model
    assert result.rnn.hidden_size == 7
    with torch.no_grad():
        model.rnn.weight_hh_l1 *= 0.1
    with pytest.raises(SurgeryError, match=r"sizes.*\(test_removal.py:\d+, in `join`\)") as caught:
        prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(ratio=0.5, scope="global"))
    assert "scope: layer" in caught.value.hint


def test_a_second_removal_goes_on_from_the_first():
    model = _model(LayerNormBehind, "gru")
    for kept in (9, 6):
        result = prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=Amount(count=model.rnn.hidden_size - kept))
        model = result.model
    assert (model.norm.features, model.norm.width, model.bare.features) == (6, HIDDEN, 6)


@pytest.mark.parametrize("cell", CELLS)
def test_states_among_inputs_and_outputs_shrink_with_their_units(cell):
    model = _model(Streaming, cell)
    count = 2 if cell == "lstm" else 1
    examples = [
        (*inputs, *torch.randn(count, 2, len(inputs[0]), HIDDEN).double()) for inputs in _inputs((2, 3), (5, 7))
    ]
    result = prune(model, {}, examples, names=["rnn"], amount=Amount(ratio=0.5))
    smaller = result.model
    states = tuple(torch.zeros(count, 2, 3, HIDDEN).double())
    outputs = smaller(*_inputs((3, 4))[0], *states)
    assert [tuple(state.shape) for state in outputs[1:]] == [(2, 3, 7)] * count
    again = smaller(*_inputs((3, 4))[0], *outputs[1:])
    assert again[0].shape == (3, 4, 3)
    assert result.structure[-1]["inputs"].keys() == {str(2 + index) for index in range(count)}


def test_a_projection_needs_more_units_than_it_gives():
    with pytest.raises(SurgeryError, match=r"`rnn` would keep 3 units, and an LSTM needs more than its proj_size"):
        prune(_model(Projected, "lstm"), {}, _inputs((2, 3)), names=["rnn"], amount=Amount(count=10))


def _joined(outputs):
    return outputs.flatten() if isinstance(outputs, torch.Tensor) else torch.cat([_joined(part) for part in outputs])


@pytest.mark.parametrize(
    ("topology", "cell"),
    [
        *((topology, list(CELLS)[index % len(CELLS)]) for index, topology in enumerate(SUPPORTED)),
        *((topology, cell) for topology in (Stacked, Bidirectional) for cell in CELLS),
    ],
)
@torch.no_grad()
def test_compensation_brings_the_outputs_nearer_to_the_originals(topology, cell):
    model = _model(topology, cell)
    names = list(recurrent_modules(model))
    batches = _inputs(*[(11, 7)] * 8)
    plain = prune(model, {}, batches[:1], names=names, amount=Amount(ratio=0.5)).model
    refitted = prune(model, {}, batches[:1], names=names, amount=Amount(ratio=0.5), calibration=batches)
    unseen = _inputs((13, 7))[0]
    wanted = _joined(model(*unseen))
    before, after = ((_joined(small(*unseen)) - wanted).square().mean() for small in (plain, refitted.model))
    assert after < 0.9 * before
    assert refitted.notes


@pytest.mark.parametrize("cell", CELLS)
def test_compensation_of_dead_units_is_the_plain_removal(cell):
    model = _model(Stacked, cell)
    silence_units(model, DEAD, seed=1)
    amount = Amount(count=DEAD)
    plain = prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=amount, scorer=magnitude(1)).model
    refitted = prune(
        model,
        {},
        _inputs((2, 3)),
        names=["rnn"],
        amount=amount,
        scorer=magnitude(1),
        calibration=_inputs((7, 5), (3, 4)),
    ).model
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(refitted.state_dict()[name], value, atol=1e-9, rtol=0)


def test_compensation_leaves_masked_weights_zero():
    model = _model(Stacked, "gru")
    masks = {"rnn.weight_hh_l1": torch.rand(model.rnn.weight_hh_l1.shape) > 0.5}
    with torch.no_grad():
        model.rnn.weight_hh_l1.mul_(masks["rnn.weight_hh_l1"])
    result = prune(
        model, masks, _inputs((2, 3)), names=["rnn"], amount=Amount(ratio=0.5), calibration=_inputs((7, 5), (3, 4))
    )
    for name, mask in result.masks.items():
        assert not result.model.get_parameter(name)[~mask].any()


def test_every_removal_is_compared_with_the_silenced_original(monkeypatch):
    def wrong(model, kept):
        smaller = resized_copy(model, kept)
        with torch.no_grad():
            smaller.head.weight[0, 0] += 0.5
        return smaller

    model, amount = _model(TwoModules, "gru"), Amount(ratio=0.5)
    prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=amount)
    monkeypatch.setattr(removal, "resized_copy", wrong)
    with pytest.raises(SurgeryError):
        prune(model, {}, _inputs((2, 3)), names=["rnn"], amount=amount)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_model_that_units_were_taken_from_keeps_all_its_weights(cell):
    model = _model(TwoModules, cell)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune(model, {}, _inputs((2, 3)), names=["rnn", "second"], amount=Amount(ratio=0.5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_halves_along_the_first_axis_lose_as_many_features_each():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.first, self.second = nn.Linear(INPUT, 8), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            left, right = torch.tanh(self.enter(x)).movedim(-1, 0).chunk(2)
            return self.first(left.movedim(0, -1)) + self.second(right.movedim(0, -1))

    model = Halves().double().eval()
    with torch.no_grad():
        model.enter.weight[:4] *= 0.01  # one by one all of the first half would go
    found = prune(model, {}, [(torch.randn(2, 3, INPUT).double(),)], names=["enter"], amount=Amount(ratio=0.5)).model
    assert (found.first.in_features, found.second.in_features) == (2, 2)
