"""A matrix-to-matrix recurrence computes its equations, whole and position by position, with the same gradients."""

from __future__ import annotations

import math

import pytest
import torch

from compressor.nn.converted.m2rnn import M2rnnLayer
from tests.nn.converted.steps import in_steps
from tests.tolerances import SAME_FLOAT64, SAME_GRADIENT

INPUT, OUTPUT = 3, 5
SIZES = {"heads": 2, "keys": 7, "values": 4, "hidden": 11}


def layer(dtype=torch.float64, **options):
    """A layer whose W and w are random too."""
    torch.manual_seed(0)
    own = M2rnnLayer(INPUT, OUTPUT, **(SIZES | options), dtype=dtype)
    with torch.no_grad():
        own.mix.normal_(std=0.7)
        own.skip.normal_()
    return own


def naive(own, x):
    """The equations, one sample, head, position and row of the matrix after the other."""
    heads, keys, values = own.heads, own.keys, own.values
    samples = []
    for sample in own.project(x).unflatten(-1, (heads, -1)):
        outputs = []
        for h in range(heads):
            rows, head = [x.new_zeros(values)] * keys, []
            for at in sample[:, h]:
                q, k, v, f = at[:keys], at[keys : 2 * keys], at[2 * keys : -1], at[-1].sigmoid()
                mixed = [torch.tanh(own.mix[h].T @ row + k[r] * v) for r, row in enumerate(rows)]
                rows = [f * row + (1 - f) * new for row, new in zip(rows, mixed, strict=True)]
                head.append(sum(q[r] * row for r, row in enumerate(rows)) + own.skip[h] * v)
            outputs.append(torch.stack(head))
        samples.append(torch.cat(outputs, 1))
    return own.readout(torch.relu(own.expand(torch.stack(samples))))


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 7), (1, 41)])
def test_the_whole_sequence_is_the_equations_and_so_are_its_gradients(batch, length):
    own, x = layer(), torch.randn(batch, length, INPUT, dtype=torch.float64, requires_grad=True)
    expected, outputs, weights = naive(own, x), own(x), [x, *own.parameters()]
    torch.testing.assert_close(outputs, expected, **SAME_FLOAT64)
    for one, other in zip(
        torch.autograd.grad(outputs.square().mean(), weights),
        torch.autograd.grad(expected.square().mean(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **SAME_GRADIENT)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_steps_give_what_the_whole_sequence_gives(chunk):
    own, x = layer(), torch.randn(2, 41, INPUT, dtype=torch.float64)
    torch.testing.assert_close(in_steps(own, x, chunk), own(x), **SAME_FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_matrices_in_float32(dtype):
    own, half, x = layer(torch.float32), layer(torch.float32).to(dtype), torch.randn(1, 90, INPUT)
    error = (half(x.to(dtype)).float() - own(x)).detach().abs().max()
    assert {value.dtype for _, value in half.initial_states()} == {torch.float32}
    assert float(error) < 50 * torch.finfo(dtype).eps


def test_a_matrix_stays_between_minus_one_and_one_whatever_is_written():
    own, x = layer(), 100.0 * torch.randn(2, 41, INPUT, dtype=torch.float64)
    states = [value.expand(2, -1, -1, -1) for _, value in own.initial_states()]
    [matrix] = own.step(x, states)[1]
    assert 0.9 < float(matrix.detach().abs().max()) <= 1.0


def test_the_start_forgets_at_once_or_within_a_hundred_positions_and_survives_its_record():
    own = M2rnnLayer(INPUT, OUTPUT, **(SIZES | {"heads": 5}), dtype=torch.float64)
    x = 3.0 + torch.randn(400, INPUT, dtype=torch.float64)
    own.start(x, torch.randn(8, INPUT, dtype=torch.float64), torch.Generator().manual_seed(0))
    keep = own.project(x.mean(0)).unflatten(-1, (5, -1))[:, -1].sigmoid()
    torch.testing.assert_close(keep, torch.exp(-1 / torch.logspace(math.log10(0.3), 2, 5, dtype=torch.float64)))
    identity = torch.eye(4, dtype=torch.float64).expand(5, -1, -1)
    torch.testing.assert_close(own.mix @ own.mix.transpose(1, 2), identity, **SAME_FLOAT64)
    again = M2rnnLayer.from_record(own.record(), dtype=torch.float64)
    again.load_state_dict(own.state_dict())
    torch.testing.assert_close(again(x[None, :9]), own(x[None, :9]), atol=0, rtol=0)
