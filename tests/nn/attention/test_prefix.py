"""The recurrence, the parallel form, the whole form and the step form give the same numbers at every scale."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.nn.attention import prefix, prefix_scan
from compressor.nn.attention.prefix import advance, advance_one, initial_state, naive, nothing, start, whole
from compressor.nn.attention.prefix_scan import BLOCK, parallel
from tests.tolerances import PREFIX_FLOAT32, SAME_FLOAT64

HEADS, WIDTH = 2, 3
LENGTHS = [1, 2, 37, BLOCK, BLOCK + 1, 3 * BLOCK - 1]


def _case(length, spread, dtype=torch.float64, seed=0):
    """Scores uniform in -+spread, normal values and gradients of the outputs; float32 numbers in any type."""
    generator = torch.Generator().manual_seed(seed)
    scores = (2 * torch.rand(HEADS, length, generator=generator) - 1) * spread
    values, gradient = torch.randn(2, HEADS, length, WIDTH, generator=generator)
    return scores.to(dtype), values.to(dtype), gradient.to(dtype)


def _run(form, scores, values, gradient):
    """Output, gradient of the scores and gradient of the values."""
    scores, values = scores.clone().requires_grad_(), values.clone().requires_grad_()
    output = form(scores, values)
    output.backward(gradient)
    return output.detach(), scores.grad, values.grad


def _by_steps(size):
    def form(scores, values):
        state = initial_state((HEADS,), WIDTH, dtype=scores.dtype, device=scores.device)
        outputs = []
        for part, own in zip(scores.split(size, -1), values.split(size, -2), strict=True):
            output, state = advance(part, own, state)
            outputs.append(output)
        return torch.cat(outputs, -2)

    return form


def _one_by_one(scores, values):
    state = initial_state((HEADS,), WIDTH, dtype=scores.dtype, device=scores.device)
    outputs = []
    for position in range(scores.shape[-1]):
        output, state = advance_one(scores[:, position], values[:, position], state)
        outputs.append(output)
    return torch.stack(outputs, -2)


FORMS = {
    "parallel": parallel,
    "whole": whole,
    "step": _one_by_one,
    "steps of 1": _by_steps(1),
    "steps of 7": _by_steps(7),
}


def _errors(found, expected, values):
    """Largest error of each, relative to the largest magnitude of the values or of that gradient.

    Where one position outweighs all others, the gradients of scores are differences of large numbers and come to
    nothing; then what counts is the magnitude of these numbers, the products of values and their gradients.
    """
    products = (expected[2] * values.double()).sum(-1)
    of_scores = torch.maximum(expected[1].abs().max(), products.abs().max())
    scales = [values.abs().max(), of_scores, expected[2].abs().max()]
    return [float((a.double() - b).abs().max() / c) for a, b, c in zip(found, expected, scales, strict=True)]


@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_recurrence_with_its_gradients_in_float64(form, length, spread):
    case = _case(length, spread)
    for found, expected in zip(_run(FORMS[form], *case), _run(naive, *case), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12 * length, rtol=1e-12)


@pytest.mark.parametrize("length", [3, 17, 100])
def test_sums_of_blocks_are_scanned_in_blocks_again(monkeypatch, length):
    monkeypatch.setattr(prefix_scan, "BLOCK", 3)  # up to five levels
    for spread in (1.0, 100.0):
        case = _case(length, spread)
        for found, expected in zip(_run(parallel, *case), _run(naive, *case), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-12 * length, rtol=1e-12)


@pytest.mark.parametrize(("form", "length"), [("naive", 1024), ("step", 1024), ("naive", 4096), ("parallel", 4096)])
def test_float32_is_within_the_tolerance_of_float64_for_scores_up_to_100(form, length):
    exact = _run(parallel, *_case(length, 100.0))
    forms = {"naive": naive, **FORMS}
    case = _case(length, 100.0, torch.float32)
    assert max(_errors(_run(forms[form], *case), exact, case[1])) < PREFIX_FLOAT32


@pytest.mark.parametrize("order", ["rising", "falling", "leaps"])
@pytest.mark.parametrize("spread", [300.0, 1e5])
def test_neither_the_size_of_scores_nor_their_order_does_harm(order, spread):
    _, values, gradient = _case(3 * BLOCK + 5, 1.0, torch.float32)
    scores = torch.linspace(-spread, spread, values.shape[1]).expand(HEADS, -1)
    scores = {"rising": scores, "falling": scores.flip(-1), "leaps": scores * (-1.0) ** torch.arange(len(scores[0]))}
    case = (scores[order], values, gradient)
    expected = _run(naive, *(part.double() for part in case))
    for form in FORMS.values():
        assert max(_errors(_run(form, *case), expected, values)) < PREFIX_FLOAT32


@pytest.mark.parametrize("form", ["naive", "parallel", "whole"])
@pytest.mark.parametrize("kept", [[0, 5], [3, 4, 90], [80], [70, 130]], ids=str)
def test_positions_that_take_no_part_are_as_if_left_out(form, kept):
    form = {"naive": naive, **FORMS}[form]
    scores, values, gradient = _case(2 * BLOCK + 9, 10.0)
    kept = torch.tensor(kept)
    padded = torch.full_like(scores, nothing(scores.dtype)).index_copy(1, kept, scores[:, kept])
    output, of_scores, of_values = _run(form, padded, values, gradient)
    alone = naive(scores[:, kept], values[:, kept])
    torch.testing.assert_close(output[:, kept], alone, **SAME_FLOAT64)
    assert not output[:, : kept[0]].any()
    others = torch.ones(scores.shape[1], dtype=torch.bool).index_fill(0, kept, False)
    assert not of_values[:, others].any()
    assert not of_scores[:, others].any()
    assert of_values[:, kept].isfinite().all()


def test_the_backward_pass_is_the_derivative():
    case = [part.requires_grad_() for part in _case(BLOCK + 6, 3.0)[:2]]
    assert torch.autograd.gradcheck(parallel, case, fast_mode=True)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=BLOCK + 7),
    value=st.floats(-1e3, 1e3, width=32),
)
def test_every_output_is_a_mean_of_the_values_so_far(scores, value):
    values = torch.linspace(0.0, 1.0, len(scores))[:, None] + value  # (N, 1)
    output = parallel(torch.tensor(scores)[None], values[None])[0, :, 0]
    slack = 1e-6 * (1.0 + abs(value))
    assert bool((output >= values[0] - slack).all())
    assert bool((output <= values.squeeze(1) + slack).all())


def _combine(left, right):
    """The associative operator of the paper, section 3.2."""
    (m, u, w), (m2, u2, w2) = left, right
    largest = torch.maximum(m, m2)
    old, new = (m - largest).exp(), (m2 - largest).exp()
    return largest, u * old + u2 * new, w * old[..., None] + w2 * new[..., None]


def test_prefixes_may_be_combined_in_any_grouping():
    scores, values, _ = _case(11, 30.0)
    leaves = [(scores[:, i], torch.ones(HEADS).double(), values[:, i]) for i in range(11)]
    left = reduce(_combine, leaves)
    right = reduce(lambda whole, part: _combine(part, whole), reversed(leaves))
    for _, u, w in (left, right):
        torch.testing.assert_close(w / u[:, None], parallel(scores, values)[:, -1], **SAME_FLOAT64)


def test_the_state_is_that_of_the_recurrence_and_continues_a_sequence():
    scores, values, _ = _case(29, 20.0)
    state = initial_state((HEADS,), WIDTH, dtype=torch.float64, device=torch.device("cpu"))
    _, (a, c, m) = advance(scores[:, :17], values[:, :17], state)
    torch.testing.assert_close(m, scores[:, :17].amax(-1), **SAME_FLOAT64)
    weights = (scores[:, :17] - m[:, None]).exp()
    torch.testing.assert_close(c, weights.sum(-1), **SAME_FLOAT64)
    torch.testing.assert_close(a, (weights[..., None] * values[:, :17]).sum(1), **SAME_FLOAT64)
    rest, _ = advance(scores[:, 17:], values[:, 17:], (a, c, m))
    torch.testing.assert_close(rest, naive(scores, values)[:, 17:], **SAME_FLOAT64)


def test_very_negative_scores_count_as_any_others():
    scores = torch.full((1, 5), -5e4)
    torch.testing.assert_close(parallel(scores, torch.arange(5.0)[None, :, None])[0, :, 0], torch.arange(5) / 2.0)
    assert start(torch.float32) < -1e29


def test_half_precision_is_computed_in_float32():
    scores, values, _ = _case(1000, 1.0, torch.float32)
    output = parallel(scores.to(torch.bfloat16), values.to(torch.bfloat16))
    expected = naive(scores.to(torch.bfloat16).double(), values.to(torch.bfloat16).double())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.double(), expected, atol=1e-6, rtol=2**-8)
    assert prefix.working_type(scores.double(), values) == torch.float64


def test_an_empty_sequence_is_left_empty():
    assert parallel(torch.zeros(2, 0), torch.zeros(2, 0, 3)).shape == (2, 0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_accelerator_gives_what_the_processor_gives(dtype, accelerator):
    case = [part.to(dtype) for part in _case(1000, 100.0, torch.float32)]
    expected = _run(naive, *(part.double() for part in case))
    found = [part.cpu() for part in _run(parallel, *(part.to(accelerator) for part in case))]
    limit = PREFIX_FLOAT32 if dtype == torch.float32 else 2**-7
    assert max(_errors(found, expected, case[1])) < limit
