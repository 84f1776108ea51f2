from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.nn.integers import rows_to_nearest, to_8_bits
from compressor.training.best_weights import BestWeights
from compressor.training.rounding import Rounding, Start, Steps, rounded


@pytest.mark.parametrize("shape", [(7, 5), (3, 32), (5, 33), (11, 97)])
def test_training_rounds_as_the_exporter_does(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(shape[1]))
    weight[1] = 0
    exported = torch.from_numpy(to_8_bits(weight.numpy(), (0,)).weight)
    torch.testing.assert_close(rounded(weight, "int8"), exported, atol=0, rtol=0)
    exported = torch.from_numpy(rows_to_nearest(weight.numpy(), 4, 32).weight.astype(np.float32))
    torch.testing.assert_close(rounded(weight, "int4"), exported, atol=0, rtol=0)


def test_the_gradient_is_that_at_the_rounded_weights_and_the_exact_ones_come_back():
    torch.manual_seed(0)
    model, x = nn.LSTM(5, 7), torch.randn(11, 3, 5)
    exact = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with Rounding(model, "int8").held():
        model(x)[0].square().sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    assert all(torch.equal(parameter, exact[name]) for name, parameter in model.named_parameters())
    model.zero_grad()
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            getattr(model, name).copy_(rounded(exact[name], "int8"))
    model(x)[0].square().sum().backward()
    assert all(torch.equal(parameter.grad, found[name]) for name, parameter in model.named_parameters())


def test_rounding_again_changes_nothing():
    model = nn.Sequential(nn.Embedding(13, 40), nn.Linear(40, 5))
    rounding = Rounding(model, "int4")
    rounding.keep()
    once = [parameter.detach().clone() for parameter in model.parameters()]
    rounding.keep()
    for ours, theirs in zip(model.parameters(), once, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=1e-3)


def test_a_model_without_matrices_is_refused():
    with pytest.raises(MethodError, match="no matrix"):
        Rounding(nn.Sequential(nn.Conv1d(2, 2, 3)), "int8")


def naive_lsq(weight, start, exponent, largest, block):
    """By autograd: LSQ for the steps, one block after the other, straight through for the weights."""
    parts = []
    for row in range(len(weight)):
        for group, part in enumerate(weight[row].split(block)):
            step = start[row, group, 0] * exponent[row, group, 0].exp()
            step = step + (step.half().float() - step).detach()
            value = (part.detach() / step).clamp(-largest, largest)
            parts.append((value + (value.round() - value).detach()) * step + part - part.detach())
    return torch.cat(parts).view_as(weight)


@pytest.mark.parametrize(("bits", "largest", "block"), [(4, 7, 32), (3, 3, 32), (8, 127, 37)])
def test_learned_steps_have_the_values_and_gradients_of_the_naive_form(bits, largest, block):
    draws = torch.Generator().manual_seed(1)
    weight, slope = (torch.randn(5, 37, generator=draws) for _ in range(2))
    steps = Steps(weight, bits)
    with torch.no_grad():
        steps.exponent.add_(torch.randn(steps.exponent.shape, generator=draws) / 3)
    exact, exponent = weight.clone().requires_grad_(), steps.exponent.detach().clone().requires_grad_()
    wanted = naive_lsq(exact, steps.start, exponent, largest, block)
    torch.testing.assert_close(steps.of(weight), wanted.detach(), atol=1e-6, rtol=1e-6)
    (wanted * slope).sum().backward()
    steps.learn(weight, slope)
    torch.testing.assert_close(slope, exact.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(steps.exponent.grad, exponent.grad, atol=1e-4, rtol=1e-2)


def test_learned_steps_start_no_further_off_than_those_of_the_largest_weights():
    weight = torch.randn(11, 64, generator=torch.Generator().manual_seed(2)) ** 3
    off = [(made - weight).square().sum() for made in (Steps(weight, 4).of(weight), rounded(weight, "int4"))]
    assert off[0] < 0.95 * off[1]


def trained(precision):
    """A layer after some steps on data with a few outliers among its weights."""
    torch.manual_seed(3)
    model, x = nn.Sequential(nn.LSTM(40, 24)), torch.randn(7, 9, 40)
    with torch.no_grad():
        model[0].weight_ih_l0[:, 5] *= 20
    wanted = model(x)[0].detach()
    rounding = Rounding(model, precision, learn_steps=True)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=2e-3), []
    for _ in range(60):
        with rounding.held():
            loss = (model(x)[0] - wanted).square().mean()
            loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    return model, rounding, losses


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_what_the_exporter_rounds_is_what_training_with_learned_steps_ends_with(precision):
    model, rounding, losses = trained(precision)
    assert losses[-1] < losses[0]
    assert all(bool(steps.exponent.abs().max() > 1e-3) for steps in rounding.steps.values())
    rounding.finish()
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in nn.LSTM(1, 1).named_parameters("0")]
    for name in ("weight_ih_l0", "weight_hh_l0"):
        weight = getattr(model[0], name).detach().numpy()
        rows = rows_to_nearest(weight, 4 if precision == "int4" else 8, 32 if precision == "int4" else weight.shape[1])
        np.testing.assert_array_equal(rows.weight.astype(np.float32), weight)


def test_the_best_weights_come_back_with_their_steps():
    model = nn.Sequential(nn.Linear(40, 5))
    rounding = Rounding(model, "int4", learn_steps=True)
    best = BestWeights(higher_is_better=True, patience=None)
    best.see(1, 0.5, model)
    with torch.no_grad():
        rounding.steps["0.weight"].exponent.add_(1.0)
    best.see(2, 0.4, model)
    best.restore(model)
    assert not rounding.steps["0.weight"].exponent.any()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_training_starts_with_the_rounding_that_it_is_given_and_with_its_scales(bits):
    generator = torch.Generator().manual_seed(bits)
    model = nn.Sequential(nn.Linear(40, 5))
    rows = rows_to_nearest((torch.randn(5, 40, generator=generator) ** 3).numpy(), bits, 40 if bits == 8 else 32)
    # Scales that are not those of the largest weights, as a search of the clipping may leave them.
    halved = (rows.values // 2).astype(np.float64) * rows.scale_of_each
    start = Start(torch.from_numpy(halved), torch.from_numpy(rows.scale))
    given = {"bits": {"0.weight": bits}, "starts": {"0.weight": start}}
    rounding = Rounding(model, "mixed", learn_steps=True, **given)
    wanted = start.weight.float()
    assert torch.equal(model[0].weight, wanted)
    with rounding.held():
        assert torch.equal(model[0].weight, wanted)
    rounding.finish()
    assert torch.equal(model[0].weight, wanted)


def test_16_bits_are_float16_and_a_matrix_beyond_its_range_stays_as_it_is():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 5), nn.Linear(5, 3))
    with torch.no_grad():
        model[1].weight[0, 0] = 1e6
    exact = [layer.weight.detach().clone() for layer in model]
    rounding = Rounding(model, "mixed", learn_steps=True, bits={"0.weight": 16, "1.weight": 16})
    with rounding.held():
        model(torch.randn(7, 40)).sum().backward()
    assert torch.equal(model[0].weight, exact[0])
    assert model[0].weight.grad is not None
    rounding.finish()
    assert torch.equal(model[0].weight, exact[0].half().float())
    assert not torch.equal(model[0].weight, exact[0])
    assert torch.equal(model[1].weight, exact[1])
