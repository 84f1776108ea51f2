"""A WideLayerNorm gives at the kept positions what nn.LayerNorm gives on the input filled up with zeros."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.errors import CheckpointError, SurgeryError
from compressor.nn.norm import WideLayerNorm
from tests.tolerances import SAME_FLOAT64

WIDTH, KEPT = 13, torch.tensor([0, 2, 3, 7, 12])
FORMS = [{}, {"bias": False}, {"elementwise_affine": False}, {"eps": 1e-3}]


def _mask(kept=KEPT, width=WIDTH):
    return torch.zeros(width, dtype=torch.bool).index_fill(0, kept, True)


def _norm(**options):
    torch.manual_seed(0)
    norm = nn.LayerNorm(WIDTH, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    return norm


def _filled(x, mask):
    return x.new_zeros(*x.shape[:-1], len(mask)).masked_scatter(mask, x)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_outputs_and_gradients_are_those_of_the_zero_filled_input(options):
    norm = _norm(**options)
    narrow = WideLayerNorm.from_module(norm, _mask())
    x = (3 + torch.randn(2, 7, 5, dtype=torch.float64)).requires_grad_()
    direction = torch.randn(2, 7, 5, dtype=torch.float64)
    found, expected = narrow(x), norm(_filled(x, _mask()))[..., _mask()]
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    ours = torch.autograd.grad(found, [x, *narrow.parameters()], direction)
    theirs = torch.autograd.grad(expected, [x, *norm.parameters()], direction)
    torch.testing.assert_close(ours[0], theirs[0], **SAME_FLOAT64)
    torch.testing.assert_close(list(ours[1:]), [part[_mask()] for part in theirs[1:]], **SAME_FLOAT64)


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 23), data=st.data(), scale=st.sampled_from([1e-4, 1.0, 1e4]))
def test_any_width_and_any_kept_features_agree(width, data, scale):
    kept = data.draw(st.lists(st.integers(0, width - 1), min_size=1, unique=True))
    mask = _mask(torch.tensor(kept), width)
    norm = nn.LayerNorm(width, dtype=torch.float64)
    x = scale * torch.randn(3, len(kept), dtype=torch.float64)
    found = WideLayerNorm.from_module(norm, mask)(x)
    torch.testing.assert_close(found, norm(_filled(x, mask))[..., mask], atol=1e-10, rtol=0)


@pytest.mark.parametrize("removed", [0, 1, 32])
def test_float32_with_a_large_mean_is_as_accurate_as_pytorchs(removed):
    torch.manual_seed(0)
    width = 64
    mask = torch.arange(width) >= removed
    norm = nn.LayerNorm(width)
    x = 1000 + torch.randn(101, width - removed)
    with torch.no_grad():
        theirs, ours = norm(_filled(x, mask))[..., mask], WideLayerNorm.from_module(norm, mask)(x)
        exact = norm.double()(_filled(x, mask).double())[..., mask]
    theirs, ours = theirs - exact, ours - exact
    assert float(ours.abs().max()) <= 2 * float(theirs.abs().max()) + 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_given_back_in_its_own_type(dtype):
    norm = nn.LayerNorm(WIDTH).to(dtype)
    x = (300 + torch.randn(5, 5)).to(dtype)  # the squares overflow float16
    found = WideLayerNorm.from_module(norm, _mask())(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, norm(_filled(x, _mask()))[..., _mask()], atol=0.02, rtol=0)


def test_cutting_again_keeps_the_first_width():
    norm = _norm()
    twice = WideLayerNorm.from_module(WideLayerNorm.from_module(norm, _mask()), torch.arange(5) > 1)
    assert (twice.features, twice.normalized_shape, twice.width) == (3, (3,), WIDTH)
    x = torch.randn(2, 3, dtype=torch.float64)
    mask = _mask(KEPT[2:])
    torch.testing.assert_close(twice(x), norm(_filled(x, mask))[..., mask], **SAME_FLOAT64)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_it_is_rebuilt_from_its_record_and_weights_bit_for_bit(options):
    narrow = WideLayerNorm.from_module(_norm(**options), _mask())
    rebuilt = WideLayerNorm.from_record(json.loads(json.dumps(narrow.record())), dtype=torch.float64)
    rebuilt.load_state_dict(narrow.state_dict())
    x = torch.randn(2, 5, dtype=torch.float64)
    assert torch.equal(rebuilt(x), narrow(x))


def test_frozen_weights_and_the_mode_stay():
    norm = _norm().eval()
    norm.bias.requires_grad_(False)
    narrow = WideLayerNorm.from_module(norm, _mask())
    assert (narrow.weight.requires_grad, narrow.bias.requires_grad, narrow.training) == (True, False, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": 17}, "17 features cannot be left of 13"),
        ({"features": 0}, "`features`: Input should be greater than 0"),
        ({"elementwise_affine": False}, "a bias needs elementwise_affine"),
        ({"eps": float("nan")}, "eps has to lie in 0..1"),
        ({"shift": 1}, "`shift`: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        WideLayerNorm.from_record(WideLayerNorm(5, 13).record() | change)
    assert message in str(caught.value)


def test_what_does_not_fit_is_refused():
    with pytest.raises(SurgeryError, match=r"over several axes \(3, 13\)"):
        WideLayerNorm.from_module(nn.LayerNorm((3, WIDTH)), _mask())
    with pytest.raises(SurgeryError, match="over 13 features does not fit, or keeps nothing"):
        WideLayerNorm.from_module(nn.LayerNorm(WIDTH), torch.zeros(WIDTH, dtype=torch.bool))
    with pytest.raises(ValueError, match="the input has 13 features, the normalisation 5"):
        WideLayerNorm(5, WIDTH)(torch.zeros(2, WIDTH))


def test_one_without_weights_is_told_how_many_features_are_left():
    norm = _norm(elementwise_affine=False)
    narrow = WideLayerNorm.from_module(norm, torch.ones(WIDTH, dtype=torch.bool))
    narrow.resize(5)
    x = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(narrow(x), norm(_filled(x, _mask()))[..., _mask()], **SAME_FLOAT64)
    assert narrow.record()["features"] == 5
