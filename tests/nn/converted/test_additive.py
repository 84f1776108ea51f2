"""An additive recurrence: its recurrence is its sums at once; with one key channel it is an Aaren."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.nn.attention import prefix
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.converted.additive import CHUNK, AdditiveLayer
from tests.nn.converted.steps import in_steps

INPUT, OUTPUT = 3, 5
SIZES = {"heads": 2, "keys": 3, "values": 4, "hidden": 11}
TYPES = {torch.float64: 1e-11, torch.float32: 2e-5}
ONE = 1.2784645427610737
"""SiLU of it is 1."""


def layer(dtype=torch.float64, **options):
    torch.manual_seed(0)
    return AdditiveLayer(INPUT, OUTPUT, **(SIZES | options), dtype=dtype)


def naive(own, x):
    """The equations, one position, head and key channel after the other."""
    heads, keys, values = own.heads, own.keys, own.values
    projected = own.project(x).unflatten(-1, (heads, -1))
    outputs = []
    for t in range(x.shape[1]):
        parts = []
        for h in range(heads):
            total = 0
            for c in range(keys):
                fade = 0.0 if own.log_fade is None else own.log_fade[h, c].exp()
                scores = torch.stack([projected[:, i, h, c] - fade * (t - i) for i in range(t + 1)], 1)
                shares = scores.softmax(1)
                mean = sum(shares[:, i, None] * projected[:, i, h, 2 * keys :] for i in range(t + 1))
                total = total + nn.functional.silu(projected[:, t, h, keys + c])[:, None] * mean
            parts.append(total)
        outputs.append(torch.cat(parts, 1))
    assert parts[0].shape[1] == values
    return own.readout(torch.relu(own.expand(torch.stack(outputs, 1))))


@pytest.mark.parametrize("forget", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("length", [1, 7, CHUNK + 5])
def test_all_forms_are_the_equations_and_so_are_their_gradients(dtype, length, forget):
    own = layer(dtype, forget=forget)
    x = torch.randn(2, length, INPUT, dtype=dtype, requires_grad=True)
    scores, _queries, values = own._split(x)
    chunked = own.by_chunks(scores, values)
    at_once = prefix.whole(scores, values, own._fade(scores))
    torch.testing.assert_close(chunked, at_once, atol=TYPES[dtype], rtol=TYPES[dtype])
    weights = [x, *own.parameters()]
    expected, found = naive(own, x), own(x)
    torch.testing.assert_close(found, expected, atol=TYPES[dtype], rtol=TYPES[dtype])
    for one, other in zip(
        torch.autograd.grad(found.square().mean(), weights),
        torch.autograd.grad(expected.square().mean(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=10 * TYPES[dtype], rtol=100 * TYPES[dtype])


@pytest.mark.parametrize("forget", [True, False])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_steps_give_what_the_whole_sequence_gives(chunk, forget):
    own, x = layer(forget=forget), torch.randn(2, 3 * CHUNK, INPUT, dtype=torch.float64)
    torch.testing.assert_close(in_steps(own, x, chunk), own(x), atol=1e-12, rtol=1e-12)


def test_with_one_key_channel_and_a_query_of_one_it_is_an_aaren():
    """Each head of an Aaren: scores and values are linear in the input, and nothing fades."""
    torch.manual_seed(0)
    sizes = {"query_width": 6, "input_width": INPUT, "head_width": 2, "value_head_width": 4, "output_width": OUTPUT}
    aaren = AarenAttention(2, **sizes, batch_first=True, dtype=torch.float64).eval()
    own = layer(keys=1, forget=False)
    rows, offsets = aaren._score_weights(torch.float64)
    values, biases = aaren.v_proj.weight.unflatten(0, (2, 4)), aaren.v_proj.bias.unflatten(0, (2, 4))
    zeros = torch.zeros(2, 1, INPUT, dtype=torch.float64)
    with torch.no_grad():
        own.project.weight.copy_(torch.cat([rows[:, None], zeros, values], 1).flatten(0, 1))
        ones = torch.full((2, 1), ONE, dtype=torch.float64)
        own.project.bias.copy_(torch.cat([offsets[:, None], ones, biases], 1).flatten())
        x = torch.randn(2, 100, INPUT, dtype=torch.float64)
        scores, queries, split = own._split(x)
        mixed = own._mixed(own.by_chunks(scores, split), queries)
        torch.testing.assert_close(aaren.out_proj(mixed), aaren(x, x, x)[0], atol=1e-6, rtol=0)


def test_what_fades_forgets_and_what_does_not_goes_deaf():
    """After a long sequence of ones, zeros: the first forgets the ones, the second hardly hears the zeros."""
    scores = torch.zeros(1, 1, 2000, dtype=torch.float64)
    values = torch.cat([torch.ones(1, 1, 1900, 1), torch.zeros(1, 1, 100, 1)], 2).double()
    faded = prefix.whole(scores, values, torch.tensor([0.1], dtype=torch.float64))
    kept = prefix.whole(scores, values)
    assert float(faded[0, 0, -1]) < 1e-4
    assert float(kept[0, 0, -1]) == pytest.approx(0.95)


def test_large_scores_and_their_spread_lose_nothing():
    own = layer(torch.float32)
    with torch.no_grad():
        own.project.weight[:2].mul_(1000.0)
    x = torch.randn(1, 3 * CHUNK, INPUT)
    assert bool(own(x).isfinite().all())
    torch.testing.assert_close(own(x), own.double()(x.double()).float(), atol=2e-3, rtol=1e-3)


def test_the_start_is_finite_and_survives_its_record():
    own = layer()
    own.start(torch.randn(100, INPUT), torch.randn(8, INPUT), torch.Generator().manual_seed(0))
    assert all(bool(weight.isfinite().all()) for weight in own.parameters())
    again = AdditiveLayer.from_record(own.record(), dtype=torch.float64)
    again.load_state_dict(own.state_dict())
    x = torch.randn(1, 30, INPUT, dtype=torch.float64)
    torch.testing.assert_close(again(x), own(x), atol=0, rtol=0)


@pytest.mark.parametrize(("length", "by_chunks"), [(CHUNK, False), (CHUNK + 1, True)])
def test_what_is_longer_than_a_chunk_is_trained_chunk_by_chunk(length, by_chunks, monkeypatch):
    own, called = layer(), []
    chunks = own.by_chunks
    monkeypatch.setattr(own, "by_chunks", lambda *parts: called.append(1) or chunks(*parts))
    own(torch.randn(1, length, own.input_size, dtype=own.readout.weight.dtype))
    assert bool(called) == by_chunks


@pytest.mark.parametrize("dtype", TYPES)
def test_a_memory_cache_with_no_gate_changes_nothing_and_steps_are_the_whole(dtype):
    own, plain = layer(dtype, memory_cache=2, cache_segment=3), layer(dtype)
    plain.load_state_dict({name: weight for name, weight in own.state_dict().items() if "cache." not in name})
    x = torch.randn(2, 31, INPUT, dtype=dtype)
    torch.testing.assert_close(own(x), plain(x), atol=TYPES[dtype], rtol=TYPES[dtype])
    nn.init.normal_(own.cache.ask.weight)
    assert float((own(x) - plain(x)).detach().abs().max()) > 1e-3
    torch.testing.assert_close(in_steps(own, x, 2), own(x), atol=TYPES[dtype], rtol=TYPES[dtype])
