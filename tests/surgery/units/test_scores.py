"""What a unit is worth, against the same number computed the long way."""

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.nn.recurrent.layers import recurrent_modules
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units import gradient_scores, scores
from compressor.testing import silence_units
from tests.surgery.topologies import (
    CELLS,
    HIDDEN,
    INPUT,
    Bidirectional,
    EveryStep,
    HandOver,
    Packed,
    Projected,
    Stacked,
)
from tests.surgery.units.test_removal import DEAD, TIED, _inputs, _model


class Features(nn.Module):
    """Two Linear layers with a function between, so that everything can be written down."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(INPUT, HIDDEN), nn.Linear(HIDDEN, 3)

    def forward(self, x):
        return self.second(self.hidden(x))

    def hidden(self, x):
        """What the second layer takes in."""
        return self.first(x).tanh()


def _features(seed=0):
    torch.manual_seed(seed)
    return Features().double().eval()


def _batches(*counts):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(count, 4, INPUT, generator=generator, dtype=torch.float64),) for count in counts]


def _scored(model, scorer, example, name, *, layer=None):
    """The score of each unit of a layer."""
    seen = trace(model, example)
    ids = seen.atoms.axes[f"{name}.weight", 0] if layer is None else seen.units[name, layer, 0]
    return torch.from_numpy(scorer(model, seen)[seen.atoms.roots(ids)])


def _states(model, batches):
    """What the recurrent matrix and the head are given, over all batches: h_(t-1) and h_t."""
    with torch.no_grad():
        after = [model.rnn(x)[0] for x, _ in batches]
    before = [torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1) for states in after]
    return [torch.cat([part.flatten(0, 1) for part in parts]) for parts in (before, after)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("scorer", "summary"),
    [(scores.activation, lambda h: h.abs().mean(0)), (scores.variance, lambda h: h.var(0, correction=0))],
    ids=["activation", "variance"],
)
def test_states_are_averaged_over_the_places_where_they_are_taken_in(cell, scorer, summary):
    model, batches = _model(EveryStep, cell), _inputs((3, 5), (2, 9))
    found = _scored(model, scorer(batches), batches[0], "rnn", layer=0)
    expected = torch.stack([summary(part) for part in _states(model, batches)]).mean(0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scorer", [scores.activation, scores.variance])
def test_features_count_as_their_consumer_sees_them(scorer):
    model, batches = _features(), _batches(3, 5)
    hidden = torch.cat([model.hidden(x).flatten(0, 1) for (x,) in batches]).detach()
    expected = hidden.abs().mean(0) if scorer is scores.activation else hidden.var(0, correction=0)
    torch.testing.assert_close(_scored(model, scorer(batches), batches[0], "first"), expected)


def test_features_without_a_consumer_count_as_they_are_made():
    torch.manual_seed(0)

    class Squared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(INPUT, HIDDEN)
            self.rows = nn.Parameter(torch.randn(3, HIDDEN))

        def forward(self, x):
            return self.first(x).square() @ self.rows.T

    model, batches = Squared().double().eval(), _batches(4)
    made = model.first(batches[0][0]).flatten(0, 1).detach()
    torch.testing.assert_close(_scored(model, scores.activation(batches), batches[0], "first"), made.abs().mean(0))


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_are_norms_over_rows_and_columns(power):
    model = _features()
    found = _scored(model, scores.magnitude(power), _batches(2)[0], "first")
    owned = torch.cat([model.first.weight, model.second.weight.T], 1).detach()
    torch.testing.assert_close(found, torch.linalg.vector_norm(owned, power, dim=1))


def test_distances_are_sums_over_the_other_units_of_both_weights():
    model = _features()
    expected = torch.zeros(HIDDEN).double()
    for owned in (model.first.weight.detach(), model.second.weight.detach().T):
        expected += torch.stack([sum((row - other).norm() for other in owned) for row in owned])
    torch.testing.assert_close(_scored(model, scores.distance(), _batches(2)[0], "first"), expected)


def test_the_hessian_is_the_sum_of_squared_weights_times_squared_gradients():
    model, batches = _features(), [(x, torch.randn(len(x[0]), 4, 3).double()) for x in _batches(3, 5)]
    loss = nn.functional.mse_loss
    expected = torch.zeros(HIDDEN).double()
    for inputs, target in batches:
        gradients = torch.autograd.grad(loss(model(*inputs), target), [model.first.weight, model.second.weight])
        expected += (model.first.weight * gradients[0]).square().sum(1).detach()
        expected += (model.second.weight * gradients[1]).square().sum(0).detach()
    found = _scored(model, gradient_scores.hessian(batches, loss), batches[0][0], "first")
    torch.testing.assert_close(found, expected)


def test_taylor_is_weight_times_gradient():
    model, batches = _features(), [(x, torch.randn(len(x[0]), 4, 3).double()) for x in _batches(3, 5)]
    loss = nn.functional.mse_loss
    expected = torch.zeros(HIDDEN).double()
    for inputs, target in batches:
        model.zero_grad()
        loss(model(*inputs), target).backward()
        for weight, axis in ((model.first.weight, 1), (model.second.weight, 0)):
            expected += (weight * weight.grad).abs().sum(axis).detach()
    model.zero_grad()
    found = _scored(model, gradient_scores.taylor(batches, loss), batches[0][0], "first")
    torch.testing.assert_close(found, expected)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_taylor_of_a_recurrent_layer_sums_over_its_gates(cell):
    model, batches = _model(EveryStep, cell), [(x, None) for x in _inputs((3, 5), (2, 9))]

    def loss(outputs, _):
        return outputs.square().mean()

    blocks = model.rnn.weight_ih_l0.size(0) // HIDDEN
    expected = torch.zeros(HIDDEN).double()
    for inputs, _ in batches:
        model.zero_grad()
        loss(model(*inputs), None).backward()
        for weight in (model.rnn.weight_ih_l0, model.rnn.weight_hh_l0):
            expected += (weight * weight.grad).abs().detach().view(blocks, HIDDEN, -1).sum((0, 2))
        for weight in (model.rnn.weight_hh_l0, model.head.weight):
            expected += (weight * weight.grad).abs().detach().sum(0)
    found = _scored(model, gradient_scores.taylor(batches, loss), batches[0][0], "rnn", layer=0)
    torch.testing.assert_close(found, expected)


def test_sensitivity_is_the_expected_change_of_the_outputs():
    model, batches = _features(), _batches(6, 7)
    hidden = [model.hidden(x).detach() for (x,) in batches]
    mean = torch.cat([part.flatten(0, 1) for part in hidden]).mean(0)
    # The change of output o at sample b, step t is W_ou (h_ut - mean_u): E over r of the square of its sum with r.
    change = sum((part - mean).square().sum((0, 1)) for part in hidden) * model.second.weight.detach().square().sum(0)
    probes = 4000
    found = _scored(
        model,
        gradient_scores.sensitivity(batches, torch.Generator().manual_seed(0), probes=probes),
        batches[0],
        "first",
    )
    torch.testing.assert_close((found.square() / probes), change, rtol=0.15, atol=0.0)


@pytest.mark.parametrize(
    ("topology", "cell"),
    [
        *((topology, cell) for topology in (EveryStep, Stacked, Bidirectional, Packed, HandOver) for cell in CELLS),
        (Projected, "lstm"),
    ],
)
@pytest.mark.parametrize("kind", ["activation", "variance", "sensitivity", "taylor"])
def test_units_that_are_always_zero_are_worth_nothing(topology, cell, kind):
    model, batches = _model(topology, cell), _inputs((4, 6), (2, 7))
    silence_units(model, DEAD, seed=2, same=type(model).__name__ in TIED)
    generator = torch.Generator().manual_seed(0)
    scorer = {
        "activation": lambda: scores.activation(batches),
        "variance": lambda: scores.variance(batches),
        "sensitivity": lambda: gradient_scores.sensitivity(batches, generator),
        "taylor": lambda: gradient_scores.taylor([(x, None) for x in batches], lambda y, _: y.square().mean()),
    }[kind]()
    seen = trace(model, batches[0])
    found = scorer(model, seen)
    for ids in seen.units.values():
        of_units = np.sort(found[seen.atoms.roots(ids)])
        assert of_units[DEAD - 1] <= 1e-12
        assert of_units[DEAD] > 1e-12 or cell == "rnn_relu"  # where a unit may be 0 without our doing


def test_random_scores_come_from_the_generator():
    model, example = _features(), _batches(2)[0]
    first, again, other = (
        _scored(model, scores.random(torch.Generator().manual_seed(seed)), example, "first") for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == HIDDEN


def test_without_gradients_the_error_names_other_scores():
    class Stopped(Features):
        def forward(self, x):
            return super().forward(x.detach()).detach()

    torch.manual_seed(0)
    model, batches = Stopped().double().eval(), _batches(2)
    with pytest.raises(MethodError, match="no gradient flows") as caught:
        _scored(model, gradient_scores.sensitivity(batches, torch.Generator()), batches[0], "first")
    assert "`l2`" in caught.value.render()


@pytest.mark.parametrize("kind", ["sensitivity", "taylor"])
def test_the_model_is_as_it_was(kind):
    model, batches = _model(Stacked, "gru"), _inputs((4, 6))
    model.train()
    model.rnn.weight_hh_l0.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pairs = [(x, None) for x in batches]
    scorer = (
        gradient_scores.taylor(pairs, lambda y, _: y.mean())
        if kind == "taylor"
        else gradient_scores.sensitivity(batches, torch.Generator())
    )
    _scored(model, scorer, batches[0], "rnn", layer=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(module.training for module in recurrent_modules(model).values())
    assert not model.rnn.weight_hh_l0.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
