"""The diagonal GRU and LSTM: all positions at once are one after the other, and both are the published equations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError
from compressor.nn.converted.diagonal_cells import gru, lstm
from compressor.nn.converted.para_rnn import ParaLayer
from tests.nn.converted.steps import in_steps

INPUT, OUTPUT, UNITS, BATCH = 3, 5, 7, 4
CELLS = ("gru", "lstm")


def layer(cell, clip=0.5, dtype=torch.float64):
    torch.manual_seed(0)
    own = ParaLayer(INPUT, OUTPUT, hidden=UNITS, cell=cell, clip=clip, dtype=dtype)
    for diagonal in own.diagonals:
        nn.init.uniform_(diagonal, -3.0, 3.0)  # all but the clip
    return own


def published(own, x):
    """Equations of the paper, one position at a time: (B, T, I) -> (B, T, N)."""
    a = [own.clip * torch.tanh(weight) for weight in own.diagonals]
    h = c = x.new_zeros(x.shape[0], UNITS)
    outputs = []
    for t in range(x.shape[1]):
        first, second, third = (own.project.weight @ x[:, t].T).T.add(own.project.bias).split(UNITS, -1)
        if own.cell == "gru":
            z, r = torch.sigmoid(a[0] * h + first), torch.sigmoid(a[1] * h + second)
            candidate = torch.tanh(a[2] * (h * r) + third)
            h = (1 - z) * h + z * candidate
        else:
            f = torch.sigmoid(a[0] * h + first + a[3] * c)
            z = torch.tanh(a[1] * h + second)
            c = f * c + (1 - f) * z
            o = torch.sigmoid(a[2] * h + third + a[4] * c)
            h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("length", [1, 2, 40])
@pytest.mark.parametrize("clip", [0.5, 0.9, 4.0])
def test_both_forms_give_the_published_equations_with_the_same_gradients(cell, length, clip):
    own, x = layer(cell, clip), torch.randn(BATCH, length, INPUT, dtype=torch.float64, requires_grad=True)
    gates, weights = own.project(x), [x, *own.project.parameters(), *own.diagonals]
    forms = [own.in_parallel(gates), own.in_order(gates, own.zeros(BATCH))[0], published(own, x)]
    gradients = [torch.autograd.grad(form.square().sum(), weights, retain_graph=True) for form in forms]
    for form, own_gradients in zip(forms[:2], gradients[:2], strict=True):
        torch.testing.assert_close(form, forms[2], atol=1e-10, rtol=1e-10)
        for found, expected in zip(own_gradients, gradients[2], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("cell", CELLS)
def test_float32_agrees_to_1e_5_over_512_positions_with_gradients(cell):
    own, x = layer(cell, dtype=torch.float32), torch.randn(2, 512, INPUT, requires_grad=True)
    gates = own.project(x)
    forms = [own.in_parallel(gates), own.in_order(gates, own.zeros(2))[0]]
    first, second = (torch.autograd.grad(form.mean(), x, retain_graph=True)[0] for form in forms)
    torch.testing.assert_close(*forms, atol=1e-5, rtol=0)
    torch.testing.assert_close(first, second, atol=1e-5 * float(second.abs().max()), rtol=0)


@pytest.mark.parametrize(("cell", "most"), [("gru", 1e-5), ("lstm", 1e-4)])
def test_three_iterations_come_as_near_as_published_at_a_clip_of_one_half(cell, most):
    torch.manual_seed(0)
    own = ParaLayer(32, 32, hidden=32, cell=cell, clip=0.5, dtype=torch.float64)
    for diagonal in own.diagonals:
        nn.init.uniform_(diagonal, -3.0, 3.0)
    nn.init.zeros_(own.project.bias)
    gates = own.project(2.0 * torch.randn(4, 512, 32, dtype=torch.float64))
    with torch.no_grad():
        expected = own.in_order(gates, own.zeros(4))[0]
        errors = [
            float((own.newton(gates, most).states[:, :, 0].transpose(0, 1) - expected).abs().max()) for most in range(6)
        ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[3] < most
    assert errors[5] < 1e-12


@pytest.mark.parametrize("cell", CELLS)
def test_jacobians_are_those_of_finite_differences(cell):
    own = layer(cell)
    states = torch.randn(2, BATCH, 2 if cell == "lstm" else 1, UNITS, dtype=torch.float64)
    update = {"gru": gru, "lstm": lstm}[cell]
    gates = list(torch.randn(3, 2, BATCH, UNITS, dtype=torch.float64))
    diagonals = [own.clip * torch.tanh(weight) for weight in own.diagonals]

    def after(states):
        return torch.stack(update(list(states.unbind(2)), gates, diagonals, False)[0], 2)

    _, jacobians = update(list(states.unbind(2)), gates, diagonals, True)
    for place in range(states.shape[2]):
        moved = torch.zeros_like(states)
        moved[:, :, place] = 1e-6
        slope = (after(states + moved) - after(states - moved)) / 2e-6
        torch.testing.assert_close(jacobians[:, :, :, place], slope, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_steps_give_what_the_whole_sequence_gives(cell, chunk):
    own, x = layer(cell), torch.randn(BATCH, 12, INPUT, dtype=torch.float64)
    torch.testing.assert_close(in_steps(own, x, chunk), own(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_the_start_is_finite_and_its_units_average_over_short_and_long_times(cell):
    own = layer(cell)
    own.start(torch.randn(100, INPUT), torch.randn(8, INPUT), torch.Generator().manual_seed(0))
    with torch.no_grad():
        pulse = torch.zeros(1, 200, INPUT, dtype=torch.float64)
        pulse[:, 0] = 5.0
        left = (own.features(pulse) - own.features(torch.zeros_like(pulse)))[0, 50].abs()
    assert bool(torch.stack([weight.isfinite().all() for weight in own.parameters()]).all())
    assert float(left.min()) < 1e-6
    assert float(left.max()) > 1e-3


def test_a_record_is_strict():
    own = layer("lstm")
    rebuilt = ParaLayer.from_record(own.record())
    assert {name: value.shape for name, value in rebuilt.state_dict().items()} == {
        name: value.shape for name, value in own.state_dict().items()
    }
    with pytest.raises(CheckpointError, match="cell"):
        ParaLayer.from_record(own.record() | {"cell": "rnn"})
