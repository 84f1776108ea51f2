"""A pLSTM over time: its recurrence is its gating matrix, and both are the equations."""

from __future__ import annotations

import pytest
import torch

from compressor.nn.converted.plstm import CHUNK, PlstmLayer
from compressor.nn.converted.source_mark import Gates, whole
from tests.nn.converted.steps import in_steps
from tests.tolerances import SAME_FLOAT64, SAME_GRADIENT

INPUT, OUTPUT = 3, 5
SIZES = {"heads": 2, "keys": 7, "values": 4, "hidden": 11}
LEAST = 1e-4
forms = pytest.mark.parametrize("constant", [False, True])


def layer(dtype=torch.float64, **options):
    torch.manual_seed(0)
    return PlstmLayer(INPUT, OUTPUT, **(SIZES | options), dtype=dtype)


def naive(own, x):
    """The equations, one sample, head and position after the other."""
    heads, keys, values = own.heads, own.keys, own.values
    samples = []
    for sample in own.project(x).unflatten(-1, (heads, -1)):
        outputs = []
        for h in range(heads):
            memory, head = x.new_zeros(keys, values), []
            for row in sample[:, h]:
                q, k, v = row[:keys], row[keys : 2 * keys], row[2 * keys : 2 * keys + values]
                raw = row[2 * keys + values :] if own.gates is None else own.gates[h]
                transition, source, mark, direct = raw.sigmoid()
                head.append(mark * memory.T @ q + direct * (q @ k) * v)
                memory = (LEAST + (1 - LEAST) * transition) * memory + source * torch.outer(k, v)
            outputs.append(torch.stack(head))
        samples.append(torch.cat(outputs, 1))
    return own.readout(torch.relu(own.expand(torch.stack(samples))))


@forms
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 7), (2, CHUNK + 5)])
def test_all_forms_are_the_equations_and_so_are_their_gradients(constant, batch, length):
    own = layer(constant_gates=constant)
    x = torch.randn(batch, length, INPUT, dtype=torch.float64, requires_grad=True)
    parts = own._split(x)
    torch.testing.assert_close(own.by_chunks(*parts), whole(*parts), **SAME_FLOAT64)
    expected, outputs = naive(own, x), own(x)
    torch.testing.assert_close(outputs, expected, **SAME_FLOAT64)
    weights = [x, *own.parameters()]
    for one, other in zip(
        torch.autograd.grad(outputs.square().mean(), weights),
        torch.autograd.grad(expected.square().mean(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **SAME_GRADIENT)


@forms
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_steps_give_what_the_whole_sequence_gives(constant, chunk):
    own, x = layer(constant_gates=constant), torch.randn(2, 3 * CHUNK, INPUT, dtype=torch.float64)
    outputs = in_steps(own, x, chunk)
    torch.testing.assert_close(outputs, own(x), **SAME_FLOAT64)
    torch.testing.assert_close(outputs, naive(own, x), **SAME_FLOAT64)


def test_the_gating_matrix_has_what_each_position_reads_of_each_earlier_one():
    """Queries and keys of 1 and values of a unit matrix: the outputs are the matrix itself."""
    transition, source, mark, direct = torch.rand(4, 1, 1, 4, dtype=torch.float64)
    ones = torch.ones(1, 1, 4, 1, dtype=torch.float64)
    matrix = whole(ones, ones, torch.eye(4, dtype=torch.float64)[None, None], Gates(transition, source, mark, direct))
    t, s, m, d = (gate[0, 0].tolist() for gate in (transition, source, mark, direct))
    expected = [
        [d[0], 0, 0, 0],
        [m[1] * s[0], d[1], 0, 0],
        [m[2] * t[1] * s[0], m[2] * s[1], d[2], 0],
        [m[3] * t[2] * t[1] * s[0], m[3] * t[2] * s[1], m[3] * s[2], d[3]],
    ]
    torch.testing.assert_close(matrix[0, 0], torch.tensor(expected, dtype=torch.float64), **SAME_FLOAT64)


def test_what_was_forgotten_long_ago_costs_no_precision():
    """Nine hundred positions that forget all, then some that forget little."""
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 1, 1, 1000, 5)
    transition, source, mark, direct = torch.rand(4, 1, 1, 1000)
    transition[..., :900], transition[..., 900:] = LEAST, 0.99
    gates = Gates(transition, source, mark, direct)
    exact = whole(queries.double(), keys.double(), values.double(), Gates(*(gate.double() for gate in gates)))
    error = (whole(queries, keys, values, gates) - exact).abs().max()
    assert float(error) < 1e-6 * float(exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_its_sums_in_float32(dtype):
    own, x = layer(torch.float32), torch.randn(1, 3 * CHUNK, INPUT)
    half = layer(torch.float32).to(dtype)
    error = (half(x.to(dtype)).float() - own(x)).detach().abs().max()
    assert {value.dtype for _, value in half.initial_states()} == {torch.float32}
    assert float(error) < 20 * torch.finfo(dtype).eps


@forms
def test_the_start_fades_from_one_position_to_a_hundred_and_survives_its_record(constant):
    own = layer(constant_gates=constant, heads=5)
    x = 3.0 + torch.randn(400, INPUT, dtype=torch.float64)
    own.start(x, torch.randn(8, INPUT, dtype=torch.float64), torch.Generator().manual_seed(0))
    gates = own._split(x.mean(0)[None, None])[3]
    spans = torch.logspace(0, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(gates.transition[0, :, 0], torch.exp(-1 / spans), atol=2 * LEAST, rtol=0)
    torch.testing.assert_close(gates.source[0, :, 0], 1 - torch.exp(-1 / spans), atol=1e-9, rtol=0)
    again = PlstmLayer.from_record(own.record(), dtype=torch.float64)
    again.load_state_dict(own.state_dict())
    torch.testing.assert_close(again(x[None]), own(x[None]), atol=0, rtol=0)


@pytest.mark.parametrize(("length", "by_chunks"), [(CHUNK, False), (CHUNK + 1, True)])
def test_what_is_longer_than_a_chunk_is_trained_chunk_by_chunk(length, by_chunks, monkeypatch):
    own, called = layer(), []
    chunks = own.by_chunks
    monkeypatch.setattr(own, "by_chunks", lambda *parts: called.append(1) or chunks(*parts))
    own(torch.randn(1, length, INPUT, dtype=torch.float64))
    assert bool(called) == by_chunks
