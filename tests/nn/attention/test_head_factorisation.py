"""Heads of fewer features compute the best product of that rank, and biases cost nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.head_factorisation import (
    HeadWeights,
    cut_query_key,
    cut_value_output,
    narrowed,
    query_key_pairs,
    value_output_pairs,
)
from compressor.nn.least_squares import Moments
from tests.tolerances import SAME_FLOAT64

HEADS, WIDTH, VALUE, QUERY, KEY, OUTPUT = 3, 5, 4, 7, 11, 13
B, L, S = 2, 6, 8


def attention(*, bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    module = CompactMultiheadAttention(
        HEADS, query_width=QUERY, key_width=KEY, value_width=KEY, head_width=WIDTH, value_head_width=VALUE,
        output_width=OUTPUT, scale=0.7, bias=bias, batch_first=True, dtype=dtype,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.eval()


def weights_of(module):
    return HeadWeights.of(module.num_heads, (module.q_proj, module.k_proj, module.v_proj, module.out_proj))


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(B, L, QUERY, generator=generator, dtype=torch.float64)
    y = 1 + torch.randn(B, S, KEY, generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def moments(samples):
    found = Moments(samples.size(-1), 0, samples.device)
    found.add(samples.detach().flatten(0, -2).double(), samples.new_zeros(samples[..., 0].numel(), 0).double())
    return found


def seen(module, x, y):
    """Queries, keys, and what the heads give."""
    contexts = []
    handle = module.out_proj.register_forward_pre_hook(lambda _, given: contexts.append(given[0]))
    module(x, y, y)
    handle.remove()
    return moments(module.q_proj(x)), moments(module.k_proj(y)), moments(contexts[0])


def cut(module, rank, *, data=None, joint=True, value_rank=None):
    weights = weights_of(module)
    queries_keys, contexts = (None, None) if data is None else (data[:2], data[2])
    maps = query_key_pairs(weights, queries_keys, joint=joint).maps(rank)
    others = value_output_pairs(weights, contexts, joint=joint).maps(value_rank or rank)
    return narrowed(module, cut_value_output(cut_query_key(weights, maps), others, contexts))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_all_features_give_the_original_under_masks_too(bias, joint, data, dtype, tolerance):
    module, (x, y) = attention(bias=bias, dtype=dtype), batch(dtype)
    whole = cut(module, WIDTH, data=seen(module, x, y) if data else None, joint=joint, value_rank=VALUE)
    padding = torch.arange(S) >= torch.tensor([S, 3])[:, None]
    causal = torch.ones(L, S, dtype=torch.bool).triu(3)
    for options in ({}, {"key_padding_mask": padding}, {"attn_mask": causal, "need_weights": False}):
        for found, expected in zip(whole(x, y, y, **options), module(x, y, y, **options), strict=True):
            if expected is not None:
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rank", [1, 3])
def test_scores_are_those_of_the_best_product_of_the_rank_up_to_what_the_softmax_drops(rank):
    module, (x, y) = attention(), batch()
    narrow = cut(module, rank)
    queries = torch.cat([module.q_proj.weight, module.q_proj.bias[:, None]], 1).view(HEADS, WIDTH, QUERY + 1)
    keys = module.k_proj.weight.view(HEADS, WIDTH, KEY)
    u, values, vh = torch.linalg.svd(queries.mT @ keys, full_matrices=False)
    best = (u[..., :rank] * values[:, None, :rank]) @ vh[:, :rank]  # (h, E_q + 1, E_k)
    with_one = torch.cat([x, x.new_ones(B, L, 1)], -1)
    expected = torch.einsum("ble,hef,bsf->bhls", with_one, best, y)
    q, k = (part.unflatten(-1, (HEADS, -1)) for part in (narrow.q_proj(x), narrow.k_proj(y)))
    torch.testing.assert_close(torch.einsum("blhd,bshd->bhls", q, k), expected, atol=1e-10, rtol=0)
    assert not narrow.k_proj.bias.any()


@pytest.mark.parametrize("rank", [1, 3])
def test_values_and_output_are_the_best_product_and_their_bias_is_exact(rank):
    module, (x, y) = attention(), batch()
    weights = weights_of(module)
    narrow = narrowed(module, cut_value_output(weights, value_output_pairs(weights, None, joint=True).maps(rank), None))
    outputs = module.out_proj.weight.view(OUTPUT, HEADS, VALUE).movedim(1, 0)  # (h, E_o, d_v)
    u, values, vh = torch.linalg.svd(outputs @ module.v_proj.weight.view(HEADS, VALUE, KEY), full_matrices=False)
    best = (u[..., :rank] * values[:, None, :rank]) @ vh[:, :rank]  # (h, E_o, E_k)
    _, probabilities = module(x, y, y, average_attn_weights=False)
    expected = torch.einsum("bhls,hoe,bse->blo", probabilities, best, y)
    expected = expected + module.out_proj.bias + module.out_proj.weight @ module.v_proj.bias
    torch.testing.assert_close(narrow(x, y, y)[0], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_maps_that_know_the_data_err_by_the_dropped_singular_values_on_it_and_less_than_plain_ones(rank):
    module, (x, y) = attention(), batch()
    data = seen(module, x, y)
    weights = weights_of(module)
    queries = module.q_proj(x).detach().flatten(0, 1).unflatten(1, (HEADS, WIDTH)).movedim(1, 0)  # (h, N, d)
    keys = module.k_proj(y).detach().flatten(0, 1).unflatten(1, (HEADS, WIDTH)).movedim(1, 0)
    keys = keys - keys.mean(1, keepdim=True)
    whole = queries @ keys.mT / (queries.size(1) * keys.size(1)) ** 0.5
    count = (queries.size(1) * keys.size(1)) ** 0.5
    errors = []
    for found in (data[:2], None):
        first, second = query_key_pairs(weights, found, joint=True).maps(rank)
        errors.append(float((whole - queries @ first @ second.mT @ keys.mT / count).square().sum()))
    dropped = float(torch.linalg.svdvals(whole)[:, rank:].square().sum())
    assert errors[0] == pytest.approx(dropped, abs=1e-8 * float(whole.square().sum()))
    assert errors[0] < errors[1]


def test_the_output_has_the_mean_of_the_original_on_the_data():
    module, (x, y) = attention(), batch()
    data = seen(module, x, y)
    weights = weights_of(module)
    maps = value_output_pairs(weights, data[2], joint=True).maps(1)
    narrow = narrowed(module, cut_value_output(weights, maps, data[2]))
    lost = (module(x, y, y)[0] - narrow(x, y, y)[0]).detach()
    assert float(lost.flatten(0, 1).mean(0).abs().max()) < 1e-10
    assert float(lost.abs().max()) > 1e-3


def test_values_with_a_bias_before_an_output_without_one_keep_theirs():
    module = attention()
    module.out_proj.bias = None
    weights = weights_of(module)
    maps = value_output_pairs(weights, None, joint=True).maps(VALUE)
    new = cut_value_output(weights, maps, None)
    assert new.output_bias is None
    torch.testing.assert_close(new.output @ new.value_bias, weights.output @ weights.value_bias, atol=1e-9, rtol=0)
    cut_down = cut_value_output(weights, value_output_pairs(weights, None, joint=True).maps(2), None)
    assert cut_down.value_bias.any()


def test_frozen_layers_stay_frozen_and_the_module_is_left_alone():
    module = attention()
    module.q_proj.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    narrow = cut(module, 2)
    assert [parameter.requires_grad for parameter in narrow.parameters()] == [False, False, *[True] * 6]
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert (narrow.head_dim, narrow.value_head_dim, narrow.scale, narrow.dropout) == (2, 2, 0.7, 0.0)


def test_the_same_weights_in_pytorchs_layer_give_the_same_cut():
    torch.manual_seed(0)
    module = nn.MultiheadAttention(12, 3, batch_first=True).double()
    x = torch.randn(B, L, 12, dtype=torch.float64)
    compact = CompactMultiheadAttention.from_module(module)
    whole = cut(compact, 4)
    torch.testing.assert_close(whole(x, x, x)[0], module(x, x, x)[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(cut(whole, 2)(x, x, x)[0], cut(compact, 2)(x, x, x)[0], **SAME_FLOAT64 | {"atol": 1e-9})
