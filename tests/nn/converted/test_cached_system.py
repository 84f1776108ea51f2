"""Linear systems with a memory cache: one state a segment; a gate of 0 changes nothing, and no state grows."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from compressor.nn.converted.convolved import by_convolution, by_fft
from compressor.nn.converted.lssl import LsslLayer
from tests.nn.converted.steps import in_steps
from tests.nn.converted.test_lssl import INPUT, NAIVE, OUTPUT, STATES, TYPES, both, layer

SIZES = [(1, 2, 9), (3, 2, 23), (5, 4, 7), (8, 1, 40), (4, 3, 8)]
"""Positions of a segment, slots, positions of the sequence."""


def cached(slots, segment, dtype=torch.float64, **options):
    own = layer(dtype, memory_cache=slots, cache_segment=segment, **options)
    for weight in own.cache.ask.parameters():
        nn.init.normal_(weight)
    return own


def inputs(length, dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(2, length, INPUT, dtype=dtype, requires_grad=True)


def naive(own, x, state):
    """Each segment through the system by itself; each position weighs what they gave by a softmax over all places."""
    cache, channels = own.cache, own.project(x).transpose(1, 2)
    asked, described = cache.ask(x), cache.describe(x)  # (B, T, r)
    places, answers = torch.arange(x.shape[1]) // cache.segment, []
    for segment in range(int(places[-1]) + 1):
        alone = channels * (places == segment)
        answers.append(NAIVE[state](own, alone) - own.system.skip[:, None] * alone)
    outputs = []
    for t, now in enumerate(places.tolist()):
        logits, given = [torch.zeros(2, dtype=x.dtype)], [sum(answers[: max(0, now - cache.slots)], 0 * answers[0])]
        for segment in range(now - cache.slots, now + 1):
            if segment < 0:  # a slot that is empty
                logits.append(torch.zeros(2, dtype=x.dtype))
                given.append(0 * answers[0])
                continue
            mean = described[:, segment * cache.segment : min(t + 1, (segment + 1) * cache.segment)].mean(1)
            logits.append((asked[:, t] * mean).sum(-1))
            given.append(answers[segment])
        shares = len(logits) * torch.stack(logits, -1).softmax(-1)  # (B, S + 2)
        outputs.append((shares[:, None] * torch.stack([one[:, :, t] for one in given], -1)).sum(-1))
    filtered = torch.stack(outputs, -1) + own.system.skip[:, None] * channels
    return own.readout(torch.relu(own.expand(filtered.transpose(1, 2))))


def by_fft_or_not(own, x, form):
    """The layer, its systems by one of the forms of a whole sequence."""
    channels = own.project(x).transpose(1, 2)
    answer = partial(form, kernel=own.system.pulse_response(x.shape[1], own.rate_scale))
    filtered = own.cache.whole(x, channels, answer) + own.system.skip[:, None] * channels
    return own.readout(torch.relu(own.expand(filtered.transpose(1, 2))))


@both
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("segment", "slots", "length"), SIZES)
def test_all_forms_are_one_system_a_segment_and_so_are_their_gradients(segment, slots, length, state, dtype):
    own, x = cached(slots, segment, dtype, state=state), inputs(length, dtype)
    weights = [x, *own.parameters()]
    expected = naive(own, x, state)
    wanted = torch.autograd.grad(expected.square().mean(), weights)
    forms = [partial(by_fft_or_not, own, x, by_fft), partial(by_fft_or_not, own, x, by_convolution)]
    for form in (*forms, partial(own, x), partial(in_steps, own, x, 1)):
        output = form()
        torch.testing.assert_close(output, expected, atol=TYPES[dtype], rtol=TYPES[dtype])
        for one, other in zip(torch.autograd.grad(output.square().mean(), weights), wanted, strict=True):
            torch.testing.assert_close(one, other, atol=50 * TYPES[dtype], rtol=100 * TYPES[dtype])


@both
@pytest.mark.parametrize("chunk", [2, 5])
def test_steps_of_several_positions_are_single_steps(chunk, state):
    own, x = cached(2, 3, state=state, rate_scale=0.7), inputs(23)
    torch.testing.assert_close(in_steps(own, x, chunk), in_steps(own, x, 1), atol=1e-12, rtol=0)
    torch.testing.assert_close(in_steps(own, x, 1), own(x), atol=1e-11, rtol=0)


@both
def test_a_new_cache_has_a_gate_of_0_and_gives_what_is_given_without_one(state):
    own, plain, x = layer(state=state, memory_cache=2, cache_segment=3), layer(state=state), inputs(31)
    plain.load_state_dict({name: weight for name, weight in own.state_dict().items() if "cache." not in name})
    torch.testing.assert_close(own(x), plain(x), atol=1e-11, rtol=0)
    torch.testing.assert_close(in_steps(own, x, 1), plain(x), atol=1e-11, rtol=0)
    nn.init.normal_(own.cache.ask.weight)
    assert float((own(x) - plain(x)).detach().abs().max()) > 1e-3


@both
def test_its_states_are_those_of_a_system_for_each_place_and_two_of_the_gates(state):
    own = cached(4, 3, state=state)
    found = {name: tuple(value.shape) for name, value in own.initial_states()}
    alone = {name: (1, 6, *value.shape[1:]) for name, value in layer(state=state).initial_states()}
    assert found == {**alone, "described": (1, 5, own.cache.width), "count": (1, 1)}
    _, after = own.step(inputs(29), [value.repeat(2, *[1] * (value.dim() - 1)) for _, value in own.initial_states()])
    assert [tuple(state.shape[1:]) for state in after] == [shape[1:] for shape in found.values()]


def test_large_gates_lose_no_precision_and_choose_one_place():
    own, x = cached(2, 3, torch.float32), inputs(23, torch.float32)
    with torch.no_grad():
        own.cache.ask.weight.mul_(1000.0)
        shares = own.cache._shares(x, own.cache._behind(x))
        assert bool(own(x).isfinite().all())
        assert float(shares.amax()) == pytest.approx(4.0)
        torch.testing.assert_close(own(x), own.double()(x.double()).float(), atol=1e-3, rtol=1e-3)


def test_the_start_fits_the_gates_and_survives_its_record():
    own, x = cached(2, 3), torch.randn(400, INPUT) * 5 + 3
    own.start(x, torch.randn(8, INPUT), torch.Generator().manual_seed(0))
    assert not own.cache.ask.weight.any()
    assert 0.5 < float(own.cache.describe(x.double()).detach().std(0).mean()) < 1.5
    again = LsslLayer.from_record(own.record(), dtype=torch.float64)
    again.load_state_dict(own.state_dict())
    assert (again.output_size, again.cache.slots, again.cache.segment) == (OUTPUT, 2, 3)
    assert set(STATES) == {"diagonal", "dense"}
    torch.testing.assert_close(again(inputs(9)), own(inputs(9)), atol=0, rtol=0)
