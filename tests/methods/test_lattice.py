from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError, SurgeryError
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.lattice import Lattice
from compressor.nn.masks import prune_
from tests.methods.conftest import CHANNELS, CLASSES, HIDDEN, SignTask, Tagger, make_context, same, weights
from tests.surgery.units.test_connections import strengths

WEIGHTS = ["rnn.weight_hh_l0", "rnn.weight_hh_l1"]


def lattice(state, context, **options):
    return Lattice(**options).apply(state, context)


def sizes(model):
    return [part.hidden_size for part in model.modules() if isinstance(part, nn.RNNBase)]


@pytest.fixture
def redundant():
    """Layer 0 has two pairs of units that drive the same, layer 1 one pair."""
    torch.manual_seed(0)
    model = Tagger(hidden=11).eval()
    with torch.no_grad():
        for layer, pairs in ((0, ((2, 5), (7, 8))), (1, ((0, 9),))):
            matrix = model.rnn.get_parameter(f"weight_hh_l{layer}")
            for first, second in pairs:
                matrix[:, second] = matrix[:, first]
    return State(model)


def test_the_word_is_known_and_says_what_it_does():
    assert METHODS["lattice"] is Lattice
    assert "order" in Lattice.summary


@pytest.mark.parametrize(("scope", "least"), [("layer", [2, 1]), ("global", [0, 1])])
def test_what_the_order_calls_redundant_goes(redundant, context, scope, least):
    """Over all layers, the lower one's pairs drive the upper layer differently, so that they are none there."""
    result = lattice(redundant, context, prune="units", percentile=30, scope=scope, compensate=False)
    assert all(11 - size >= number for size, number in zip(sizes(result.state.model), least, strict=True))
    assert any("meet-irreducible" in note for note in result.notes)
    assert {change.action for change in result.changes} == {"units removed", "inputs removed"}


def test_a_ratio_is_met_whatever_the_order_keeps(redundant, context):
    result = lattice(redundant, context, prune="units", ratio=0.7, round_to=2, compensate=False)
    assert sizes(result.state.model) == [4]  # one module again: both layers keep 4 of 11


def test_redundant_units_are_the_first_to_go(redundant, context):
    result = lattice(redundant, context, prune="units", ratio=0.19, percentile=30, compensate=False)
    left = {tuple(column.tolist()) for column in result.state.model.rnn.weight_hh_l0.detach()[: 3 * 9].T}
    assert len(left) == 9  # no two of the kept units drive the same


def test_without_anything_redundant_it_is_an_error_with_the_remedy(state, context):
    with torch.no_grad():
        for name in WEIGHTS:  # each unit drives itself alone
            state.model.get_parameter(name).copy_(torch.eye(HIDDEN).repeat(3, 1))
    with pytest.raises(SurgeryError, match="no unit would go") as caught:
        lattice(state, context, prune="units", threshold=0.5, compensate=False)
    assert "`ratio`" in caught.value.hint


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_connections_without_a_kept_end_and_weak_ones_become_zero_in_all_gates(kind, context):
    torch.manual_seed(0)
    model = Tagger(kind=kind).eval()
    result = lattice(State(model), context, prune="weights", percentile=60)
    gates = model.rnn.weight_hh_l0.size(0) // HIDDEN
    for name in WEIGHTS:
        strong = strengths(model.get_parameter(name), gates)
        counts = strong > torch.quantile(strong, 0.6)
        block = result.state.masks[name].view(gates, HIDDEN, HIDDEN)
        assert torch.equal(block, block[:1].expand_as(block))
        assert not block[0][~counts].any()
    assert [note.split(":")[0] for note in result.notes] == ["layer 0 of `rnn`", "layer 1 of `rnn`"]


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.93])
def test_a_sparsity_is_met_exactly_for_each_layer(state, context, sparsity):
    result = lattice(state, context, prune="weights", sparsity=sparsity)
    for name in WEIGHTS:
        pruned = int((~result.state.masks[name]).sum())
        assert pruned == 3 * int(sparsity * HIDDEN * HIDDEN + 0.5)


def test_over_all_layers_the_connections_between_them_are_pruned_too(state, context):
    result = lattice(state, context, prune="weights", sparsity=0.5, scope="global")
    touched = {change.name for change in result.changes}
    assert touched == {*WEIGHTS, "rnn.weight_ih_l1"}


def test_earlier_masks_are_kept_and_count(state, context):
    earlier = torch.rand(3 * HIDDEN, HIDDEN) > 0.4
    prune_(state.model, {WEIGHTS[0]: earlier})
    before = State(state.model, {WEIGHTS[0]: earlier})
    result = lattice(before, context, prune="weights", sparsity=0.5)
    assert not (result.state.masks[WEIGHTS[0]] & ~earlier).any()
    assert not result.state.model.rnn.weight_hh_l0[~result.state.masks[WEIGHTS[0]]].any()


def test_the_model_that_went_in_stays_as_it_was(state, context):
    before = weights(state.model)
    for options in ({"prune": "weights"}, {"prune": "units", "ratio": 0.5}):
        lattice(state, context, **options)
    assert same(weights(state.model), before)


@pytest.mark.parametrize("options", [{"prune": "weights", "sparsity": 0.6}, {"prune": "units", "ratio": 0.6}])
def test_controls_take_the_same_amount_of_each_layer(state, context, options):
    method = Lattice(**options)
    own = method.apply(state, context)
    controls = method.controls()
    assert list(controls) == ["magnitude", "random"]
    for control in controls.values():
        other = control(state, context)
        assert [change.parameters_after for change in other.changes] == [c.parameters_after for c in own.changes]
        assert [change.note for change in other.changes] == [change.note for change in own.changes]
    assert not same(weights(other.state.model), weights(own.state.model))  # the random one
    assert Lattice(**options, compare=False).controls() == {}


def test_the_random_control_is_the_same_for_the_same_seed(state):
    control = Lattice(prune="weights", sparsity=0.6).controls()["random"]
    first, again, other = (control(state, make_context(state.model, SignTask(), seed=seed)) for seed in (1, 1, 2))
    assert same(first.state.masks, again.state.masks)
    assert not same(first.state.masks, other.state.masks)


def test_a_linear_layer_has_no_order(state, context):
    with pytest.raises(MethodError, match="`head` is not a recurrent layer"):
        lattice(state, context, prune="units", targets=("head",), ratio=0.5)


def test_a_projection_is_refused_for_weights_and_followed_for_units(context):
    torch.manual_seed(0)

    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(CHANNELS, 13, batch_first=True, proj_size=3), nn.Linear(3, CLASSES)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    state = State(Projected().eval())
    with pytest.raises(MethodError, match="`rnn` projects its units"):
        lattice(state, context, prune="weights")
    assert sizes(lattice(state, context, prune="units", ratio=0.5).state.model) == [7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": "weights", "ratio": 0.5}, "`ratio` does not go with `prune: weights`"),
        ({"prune": "units", "sparsity": 0.5}, "`sparsity` does not go with `prune: units`"),
        ({"prune": "units", "adjacency": "continuous", "percentile": 40}, "`percentile` goes with `adjacency: binary`"),
        ({"prune": "units", "tolerance": 0.2}, "`tolerance` goes with `adjacency: continuous`"),
        ({"prune": "units", "percentile": 40, "threshold": 0.1}, "are two ways to say one thing"),
        ({"prune": "units", "targets": ["re:("]}, "is not a regular expression"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValidationError) as caught:
        Lattice(**options)
    assert message in str(caught.value)


def test_weights_that_are_not_finite_are_refused(state, context):
    with torch.no_grad():
        state.model.rnn.weight_hh_l1[0, 0] = float("nan")
    with pytest.raises(MethodError, match=r"`rnn\.weight_hh_l1` holds 1 values"):
        Lattice(prune="units", ratio=0.5).check(state.model)


@pytest.mark.parametrize("adjacency", ["binary", "continuous"])
def test_both_adjacencies_give_an_order_by_closure(state, context, adjacency):
    result = lattice(state, context, prune="units", ratio=0.5, adjacency=adjacency)
    assert sizes(result.state.model) == [4]


@pytest.mark.parametrize("options", [{"percentile": 10}, {"adjacency": "continuous", "tolerance": 0.9}])
def test_an_order_by_reachability_that_collapses_is_refused(state, context, options):
    with pytest.raises(MethodError, match="cannot guide pruning"):
        lattice(state, context, prune="units", ratio=0.5, order="reachability", **options)
