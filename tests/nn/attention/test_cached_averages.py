"""Averages with a memory cache: their three forms are one, a gate of 0 changes nothing, and no state grows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.nn.attention import prefix
from compressor.nn.attention.cached_averages import AT_ONCE, STATES, CachedAverages

INPUT, HEADS, KEYS, VALUES = 5, 2, 3, 7
TYPES = {torch.float64: 1e-11, torch.float32: 1e-5}
SIZES = [(1, 2, 9), (3, 2, 23), (5, 4, 7), (8, 1, 40), (4, 3, 8)]
"""Positions of a segment, slots, positions of the sequence."""


def cache(slots, segment, dtype=torch.float64):
    torch.manual_seed(0)
    own = CachedAverages(INPUT, HEADS, slots, segment, {"dtype": dtype})
    for weight in own.ask.parameters():
        nn.init.normal_(weight)
    return own


def inputs(length, dtype=torch.float64):
    """x, scores, values and fading."""
    torch.manual_seed(1)
    parts = [torch.randn(2, length, INPUT), 2.0 * torch.randn(2, HEADS, KEYS, length)]
    parts += [torch.randn(2, HEADS, 1, length, VALUES), 0.2 * torch.rand(HEADS, KEYS)]
    return [part.to(dtype).requires_grad_() for part in parts]


def naive(own, x, scores, values, fade, valid=None):
    """Each output by itself: a softmax over the positions so far of score, fading and gate."""
    asked, described = own._asked(x), own._entering(x, valid)
    outputs = []
    for t in range(x.shape[1]):
        now, added = t // own.segment, []
        for i in range(t + 1):
            of = i // own.segment
            if now - of > own.slots:
                added.append(torch.zeros(2, HEADS, dtype=x.dtype))
                continue
            mean = described[:, of * own.segment : min(t + 1, (of + 1) * own.segment)].mean(1)
            added.append((asked[:, :, t] * mean[:, None]).sum(-1))
        ages = t - torch.arange(t + 1)
        lost = 0.0 if fade is None else fade[..., None] * ages
        total = scores[..., : t + 1] - lost + torch.stack(added, -1).unsqueeze(2)
        outputs.append((total.softmax(-1).unsqueeze(-1) * values[..., : t + 1, :]).sum(-2))
    return torch.stack(outputs, -2)


def stepped(own, x, scores, values, fade, chunk=1):
    named = own.initial_states(scores, values)
    assert tuple(name for name, _ in named) == STATES
    states = [value.repeat(2, *[1] * (value.dim() - 1)) for _, value in named]
    shapes, outputs = [state.shape for state in states], []
    for start in range(0, x.shape[1], chunk):
        part = slice(start, start + chunk)
        output, states = own.step(x[:, part], scores[..., part], values[..., part, :], states, fade)
        outputs.append(output)
    assert [state.shape for state in states] == shapes
    return torch.cat(outputs, -2)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("segment", "slots", "length"), SIZES)
def test_all_forms_are_a_softmax_with_gates_and_so_are_their_gradients(segment, slots, length, dtype):
    own, given = cache(slots, segment, dtype), inputs(length, dtype)
    weights = [*given, *own.parameters()]
    expected = naive(own, *given)
    wanted = torch.autograd.grad(expected.square().sum(), weights)
    for form in (own.whole, own.by_segments, lambda *parts: stepped(own, *parts)):
        output = form(*given)
        torch.testing.assert_close(output, expected, atol=TYPES[dtype], rtol=TYPES[dtype])
        for one, other in zip(torch.autograd.grad(output.square().sum(), weights), wanted, strict=True):
            torch.testing.assert_close(one, other, atol=50 * TYPES[dtype], rtol=50 * TYPES[dtype])


def test_all_forms_are_the_same_if_nothing_fades():
    own, (x, scores, values, _) = cache(2, 3), inputs(23)
    expected = naive(own, x, scores, values, None)
    for form in (own.whole, own.by_segments, lambda *parts: stepped(own, *parts)):
        torch.testing.assert_close(form(x, scores, values, None), expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("length", "at_once"), [(AT_ONCE, True), (AT_ONCE + 1, False)])
def test_short_sequences_are_trained_at_once_and_long_ones_by_segments(length, at_once, monkeypatch):
    own, (x, scores, values, fade), called = cache(2, 30), inputs(length), []
    whole = own.whole
    monkeypatch.setattr(own, "whole", lambda *parts: called.append(1) or whole(*parts))
    torch.testing.assert_close(own(x, scores, values, fade), own.by_segments(x, scores, values, fade))
    assert bool(called) == at_once


@pytest.mark.parametrize("chunk", [2, 5])
def test_steps_of_several_positions_are_single_steps(chunk):
    own, given = cache(2, 3), inputs(23)
    torch.testing.assert_close(stepped(own, *given, chunk=chunk), stepped(own, *given), atol=1e-12, rtol=0)


def test_a_new_cache_has_a_gate_of_0_and_gives_what_is_given_without_one():
    own, (x, scores, values, fade) = CachedAverages(INPUT, HEADS, 2, 3, {"dtype": torch.float64}), inputs(23)
    plain = prefix.naive(scores, values.expand(-1, -1, KEYS, -1, -1), fade)
    torch.testing.assert_close(own.by_segments(x, scores, values, fade), plain, atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", ["whole", "by_segments"])
def test_what_is_passed_over_takes_no_part_in_averages_and_gates(form):
    """Positions in front, in the middle and behind; what comes first of all is that of nothing."""
    own, (x, scores, values, fade) = cache(2, 3), inputs(23)
    valid = torch.ones(2, 23, 1, dtype=torch.float64)
    for place in (0, 1, 9, 10, 11, 22):
        valid[:, place] = 0.0
    scores = torch.where(valid.squeeze(-1)[:, None, None] > 0, scores, prefix.nothing(scores.dtype))
    output = getattr(own, form)(x, scores, values, fade, valid)
    torch.testing.assert_close(output[..., 2:, :], naive(own, x, scores, values, fade, valid)[..., 2:, :])
    assert not output[..., :2, :].any()
    gradients = torch.autograd.grad(output.square().sum(), [x, values, *own.parameters()])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not gradients[1][..., [0, 1, 9, 10, 11, 22], :].any()


def test_the_start_gives_kappa_of_unit_variance_and_a_gate_of_0():
    own, x = cache(2, 3), torch.randn(400, INPUT) * 5 + 3
    own.start(x, torch.Generator().manual_seed(0))
    described = own.describe(x.double()).detach()
    torch.testing.assert_close(described.mean(0), torch.zeros(INPUT).double(), atol=1e-9, rtol=0)
    assert 0.5 < float(described.std(0).mean()) < 1.5
    assert all(not weight.any() for weight in own.ask.parameters())


def test_one_slot_a_position_is_attention_with_queries():
    """Segments of one position and slots for all of them: scores plus u k, a softmax."""
    own, (x, scores, values, _) = cache(9, 1), inputs(9)
    logits = own._asked(x) @ own._entering(x, None).unsqueeze(1).transpose(2, 3)  # (B, h, T, T)
    later = torch.ones(9, 9).triu(1).bool()
    shares = (scores.unsqueeze(-2) + logits.unsqueeze(2)).masked_fill(later, -torch.inf).softmax(-1)
    torch.testing.assert_close(own.by_segments(x, scores, values, None), shares @ values, atol=1e-12, rtol=0)


def test_large_scores_and_gates_lose_no_precision():
    own, (x, scores, values, fade) = cache(2, 3, torch.float32), inputs(23, torch.float32)
    with torch.no_grad():
        own.ask.weight.mul_(100.0)
        output = own.by_segments(x, 300.0 * scores, values, fade)
        assert bool(output.isfinite().all())
        assert float(output.abs().max()) <= float(values.abs().max()) + 1e-5
