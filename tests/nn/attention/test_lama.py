"""LAMA's layer does what its formulas say, step by step and head by head, whatever stands in the padding."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import CheckpointError
from compressor.nn.attention.lama import LamaAttention, parameter_count
from tests.tolerances import SAME_FLOAT64, SAME_GRADIENT

WIDTH, HEADS, BATCH, TIME = 5, 3, 7, 11
EPSILON = 1e-12
"""Under the root of the norm over the heads."""
VARIANTS = [(context, mlp) for context in ("learned", "mean") for mlp in (False, True)]


def layer(context="learned", mlp=False, heads=HEADS, width=WIDTH, seed=0):
    torch.manual_seed(seed)
    return LamaAttention(width, heads, context=context, mlp=mlp, dtype=torch.float64)


def batch(batch_size=BATCH, time=TIME, width=WIDTH, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, time, width, dtype=torch.float64, generator=generator)


def naive(module, sequence, lengths):
    """The formulas for one sample, one step and one head after the other: S (B, m, D)."""
    pooled = []
    for states, length in zip(sequence, lengths, strict=True):
        steps = [states[t] for t in range(length)]
        words = steps if module.mlp is None else [torch.tanh(module.mlp.weight @ h + module.mlp.bias) for h in steps]
        context = sum(steps) / length if module.c is None else module.c
        scores = []
        for word in words:
            inner = [torch.tanh((module.p[:, i] @ context) * (module.q[:, i] @ word)) for i in range(module.heads)]
            norm = (sum(value**2 for value in inner) + EPSILON) ** 0.5
            scores.append([value / norm for value in inner])
        for i in range(module.heads):
            powers = [score[i].exp() for score in scores]
            pooled.append(sum(power / sum(powers) * h for power, h in zip(powers, steps, strict=True)))
    return torch.stack(pooled).unflatten(0, (len(sequence), module.heads))


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
def test_outputs_and_gradients_are_those_of_the_formulas_in_loops(context, mlp):
    module, sequence = layer(context, mlp), batch().requires_grad_()
    lengths = torch.tensor([11, 1, 7, 3, 10, 2, 5])
    found, expected = module(sequence, lengths), naive(module, sequence, lengths.tolist())
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    weight, leaves = batch(seed=2)[:, :HEADS], [sequence, *module.parameters()]
    pairs = [torch.autograd.grad((weight * part).sum(), leaves) for part in (found, expected)]
    for first, second in zip(*pairs, strict=True):
        torch.testing.assert_close(first, second, **SAME_GRADIENT)


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
def test_gradients_are_those_of_finite_differences(context, mlp):
    module, sequence = layer(context, mlp), batch(2, 3).requires_grad_()
    lengths = torch.tensor([3, 2])
    names = [name for name, _ in module.named_parameters()]

    def pooled(states, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (states, lengths))

    assert torch.autograd.gradcheck(pooled, (sequence, *module.parameters()))


def test_each_head_is_its_explicit_bilinear_form_of_rank_1():
    module, sequence = layer(), batch()
    forms = module.head_forms()
    inner = torch.tanh(torch.einsum("d,mde,bte->btm", module.c, forms, sequence))
    expected = inner / (inner.square().sum(-1, keepdim=True) + EPSILON).sqrt()
    torch.testing.assert_close(module.scores(sequence), expected, **SAME_FLOAT64)
    assert torch.linalg.matrix_rank(forms).tolist() == [1] * HEADS


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
@pytest.mark.parametrize("heads", [1, 8])
def test_it_has_4hm_parameters_and_those_of_the_context_and_the_mlp(context, mlp, heads):
    half = 13  # h units in each direction
    module = layer(context, mlp, heads, 2 * half)
    counted = sum(parameter.numel() for parameter in module.parameters())
    mlp_parameters = (2 * half) ** 2 + 2 * half if mlp else 0
    assert counted == 4 * half * heads + (2 * half if context == "learned" else 0) + mlp_parameters
    assert counted == parameter_count(2 * half, heads, context, mlp=mlp)


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
@pytest.mark.parametrize("stuff", [1e6, math.nan, -math.inf])
def test_whatever_stands_in_the_padding_makes_no_difference(context, mlp, stuff):
    module, sequence = layer(context, mlp), batch()
    real = torch.arange(TIME) < torch.tensor([11, 1, 7, 3, 10, 2, 5])[:, None]
    zeros = sequence.masked_fill(~real[:, :, None], 0.0).requires_grad_()
    filled = sequence.masked_fill(~real[:, :, None], stuff).requires_grad_()
    first, second = module(zeros, real), module(filled, real)
    assert torch.equal(first, second)
    second.sum().backward()
    assert bool((filled.grad[~real] == 0).all())


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 9), padding=st.integers(0, 13))
def test_more_padding_makes_no_difference_and_masks_and_lengths_say_the_same(context, mlp, length, padding):
    module, alone = layer(context, mlp), batch(1, length)
    padded = torch.cat([alone, torch.full((1, padding, WIDTH), 3.0, dtype=torch.float64)], 1)
    by_length = module(padded, torch.tensor([length]))
    torch.testing.assert_close(by_length, module(alone), **SAME_FLOAT64)
    assert torch.equal(by_length, module(padded, torch.arange(length + padding)[None] < length))


def test_padding_may_stand_anywhere():
    module, sequence = layer("mean"), batch(1)
    real = torch.tensor([[False, True, True, False, True, False, False, True, False, True, False]])
    torch.testing.assert_close(module(sequence, real), module(sequence[:, real[0]]), **SAME_FLOAT64)


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
def test_a_sequence_without_a_real_step_gives_zeros_and_finite_gradients(context, mlp):
    module, sequence = layer(context, mlp), batch(2).requires_grad_()
    pooled = module(sequence, torch.tensor([0, 4]))
    assert bool((pooled[0] == 0).all())
    pooled.square().sum().backward()
    assert all(bool(tensor.grad.isfinite().all()) for tensor in (sequence, *module.parameters()))


def test_a_step_of_zeros_has_finite_gradients():
    module, sequence = layer(), batch(1)
    sequence[0, 4] = 0.0
    sequence.requires_grad_()
    module(sequence).square().sum().backward()
    assert all(bool(tensor.grad.isfinite().all()) for tensor in (sequence, *module.parameters()))


@pytest.mark.parametrize("heads", [1, 4])
def test_a_single_step_is_what_every_head_gives(heads):
    sequence = batch(time=1)
    torch.testing.assert_close(layer(heads=heads)(sequence), sequence.expand(-1, heads, -1), **SAME_FLOAT64)


def test_a_single_head_scores_by_sign_alone():
    module, sequence = layer(heads=1), batch()
    strong = ((module.p.T @ module.c) * (sequence @ module.q)).abs() > 1e-2
    scores = module.scores(sequence)[strong]
    torch.testing.assert_close(scores, scores.sign(), atol=1e-6, rtol=0.0)
    assert {-1, 1} == set(scores.sign().tolist())


def test_no_step_weighs_more_than_e_squared_times_another():
    sequence = torch.eye(WIDTH, dtype=torch.float64)[None]  # so that the output is the weights
    with torch.no_grad():
        module = layer()
        module.q *= 1000.0
        weights = module(sequence)[0]
    assert bool((weights.amax(1) / weights.amin(1) < math.e**2).all())


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_float32_is_near_float64_at_any_scale_of_the_steps(scale):
    module, sequence = layer(), batch() * scale
    expected = module(sequence)
    found = module.float()(sequence.float()).double()
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=1e-4)


def test_float16_holds_the_score_of_padding():
    module = layer().half()
    pooled = module(batch().half(), torch.tensor([11, 1, 7, 3, 10, 2, 0]))
    assert bool(pooled.isfinite().all())
    torch.testing.assert_close(pooled.double()[1], batch()[1, :1].expand(HEADS, -1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
def test_it_is_rebuilt_from_its_record_and_weights_bit_for_bit(context, mlp):
    module = layer(context, mlp)
    rebuilt = LamaAttention.from_record(json.loads(json.dumps(module.record())), dtype=torch.float64)
    rebuilt.load_state_dict(module.state_dict())
    assert torch.equal(rebuilt(batch()), module(batch()))
    assert rebuilt.record() == module.record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 0}, "`heads`: Input should be greater than 0"),
        ({"context": "median"}, "`context`: Input should be 'learned' or 'mean'"),
        ({"mlp": 1}, "`mlp`: Input should be a valid boolean"),
        ({"width": (1 << 24) - 1, "heads": (1 << 24) - 1}, "cannot be allocated"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        LamaAttention.from_record(layer().record() | change)
    assert message in str(caught.value)


@pytest.mark.parametrize(("context", "mlp"), VARIANTS)
def test_an_accelerator_gives_what_the_cpu_gives(context, mlp, accelerator):
    module, lengths = layer(context, mlp), torch.tensor([11, 1, 7, 3, 10, 2, 0])
    expected = module(batch(), lengths)
    found = module.to(accelerator)(batch().to(accelerator), lengths.to(accelerator))
    torch.testing.assert_close(found.cpu(), expected, **SAME_FLOAT64)


def test_a_layer_prints_its_heads_width_and_context():
    assert f"LAMA, {layer('mean').heads} heads over {WIDTH} features, mean context)" in repr(layer("mean"))
