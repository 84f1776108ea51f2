"""A CompactMultiheadAttention is nn.MultiheadAttention where nothing was removed, and keeps its scale where it was."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, SurgeryError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.structure import replace_module
from tests.tolerances import SAME_FLOAT64

WIDTH, HEADS, BATCH, QUERIES, KEYS = 12, 3, 5, 7, 11
INF = float("-inf")


def _pair(**options):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)  # PyTorch starts with biases of 0
    return module, CompactMultiheadAttention.from_module(module)


def _inputs(module, batched=True):
    shapes = [(BATCH, QUERIES, WIDTH), (BATCH, KEYS, module.kdim), (BATCH, KEYS, module.vdim)]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    if not batched:
        return [part[0] for part in inputs]
    return inputs if module.batch_first else [part.transpose(0, 1) for part in inputs]


def _padding():
    return torch.arange(KEYS) >= torch.tensor([11, 3, 1, 7, 5])[:, None]


def _masks(batched):
    rows = torch.rand(QUERIES, KEYS) > 0.7
    rows[:, 0] = False
    many = (BATCH if batched else 1) * HEADS
    padding = _padding() if batched else _padding()[1]
    numbers = torch.randn(many, QUERIES, KEYS, dtype=torch.float64)
    padding_numbers = torch.zeros(padding.shape, dtype=torch.float64).masked_fill(padding, INF)
    return {
        "none": {},
        "truth": {"attn_mask": rows},
        "numbers for every head": {"attn_mask": numbers},
        "padding": {"key_padding_mask": padding},
        "padding as numbers": {"key_padding_mask": padding_numbers},
        "both": {"attn_mask": rows, "key_padding_mask": padding},
        "causal": {"attn_mask": torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(1), "is_causal": True},
    }  # fmt: skip


@pytest.mark.parametrize("mask", _masks(True))
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("form", ["batch_first", "time first", "unbatched"])
def test_outputs_and_weights_are_those_of_pytorch(mask, need_weights, form):
    module, compact = _pair(batch_first=form == "batch_first")
    inputs, options = _inputs(module, form != "unbatched"), _masks(form != "unbatched")[mask]
    for average in (True, False):
        arguments = options | {"need_weights": need_weights, "average_attn_weights": average}
        found, expected = compact(*inputs, **arguments), module(*inputs, **arguments)
        assert (found[1] is None) == (not need_weights)
        torch.testing.assert_close(found, expected, **SAME_FLOAT64)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 7, "vdim": 5}], ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
def test_gradients_are_those_of_pytorch(options, need_weights):
    module, compact = _pair(batch_first=True, **options)
    inputs = _inputs(module)
    gradients = []
    for layer in (module, compact):
        own = [part.clone().requires_grad_() for part in inputs]
        layer(*own, key_padding_mask=_padding(), need_weights=need_weights)[0].square().sum().backward()
        gradients.append([part.grad for part in own])
    torch.testing.assert_close(gradients[1], gradients[0], **SAME_FLOAT64)
    ours = [part.weight.grad for part in (compact.q_proj, compact.k_proj, compact.v_proj)]
    theirs = (
        list(module.in_proj_weight.grad.chunk(3))
        if "kdim" not in options
        else [module.q_proj_weight.grad, module.k_proj_weight.grad, module.v_proj_weight.grad]
    )
    torch.testing.assert_close(ours, theirs, **SAME_FLOAT64)
    torch.testing.assert_close(compact.out_proj.weight.grad, module.out_proj.weight.grad, **SAME_FLOAT64)


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_in_training_draws_what_pytorch_draws(need_weights):
    module, compact = _pair(dropout=0.4, batch_first=True)
    inputs, results = _inputs(module), []
    for layer in (module, compact):
        torch.manual_seed(3)
        results.append(layer(*inputs, need_weights=need_weights)[0])
    torch.testing.assert_close(results[1], results[0], **SAME_FLOAT64)
    assert not torch.allclose(compact.eval()(*inputs)[0], results[1])


@pytest.mark.parametrize("need_weights", [True, False])
def test_removed_inner_features_leave_what_zeroing_them_gives(need_weights):
    module, compact = _pair(batch_first=True)
    kept_inner, kept_value = torch.arange(4) != 1, torch.arange(4) < 2  # of the 4 features of each head
    smaller = CompactMultiheadAttention(
        HEADS, query_width=WIDTH, key_width=WIDTH, value_width=WIDTH, head_width=3, value_head_width=2,
        output_width=WIDTH, scale=compact.scale, batch_first=True, dtype=torch.float64,
    )  # fmt: skip
    rows, value_rows = kept_inner.repeat(HEADS), kept_value.repeat(HEADS)
    with torch.no_grad():
        for name, mask in (("q_proj", rows), ("k_proj", rows), ("v_proj", value_rows)):
            ours, theirs = smaller.get_submodule(name), compact.get_submodule(name)
            ours.weight.copy_(theirs.weight[mask])
            ours.bias.copy_(theirs.bias[mask])
            theirs.weight[~mask] = 0.0
            theirs.bias[~mask] = 0.0
        smaller.out_proj.weight.copy_(compact.out_proj.weight[:, value_rows])
        smaller.out_proj.bias.copy_(compact.out_proj.bias)
    inputs = _inputs(module)
    assert smaller.scale == 0.5 != 1 / math.sqrt(smaller.head_dim)
    torch.testing.assert_close(
        smaller(*inputs, need_weights=need_weights), compact(*inputs, need_weights=need_weights), **SAME_FLOAT64
    )


def test_all_widths_are_independent_and_read_off_the_layers():
    attention = CompactMultiheadAttention(
        2, query_width=5, key_width=7, value_width=11, head_width=3, value_head_width=13, output_width=17
    )
    output, weights = attention(torch.randn(4, BATCH, 5), torch.randn(6, BATCH, 7), torch.randn(6, BATCH, 11))
    assert (output.shape, weights.shape) == ((4, BATCH, 17), (BATCH, 4, 6))
    assert (attention.embed_dim, attention.kdim, attention.vdim) == (5, 7, 11)
    assert (attention.head_dim, attention.value_head_dim) == (3, 13)
    assert sorted(attention.state_dict())[:2] == ["k_proj.bias", "k_proj.weight"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layers", [[0], [1], [0, 1]], ids=str)
def test_inside_pytorchs_encoder_nothing_takes_the_fused_path(layers, training, gradients):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 13, dropout=0.0, batch_first=True)
    plain = nn.TransformerEncoder(layer, 2).double()
    torch.manual_seed(0)
    compact = nn.TransformerEncoder(layer, 2).double()
    compact.load_state_dict(plain.state_dict())
    for index in layers:
        old = compact.layers[index].self_attn
        replace_module(compact, f"layers.{index}.self_attn", CompactMultiheadAttention.from_module(old))
    x = torch.randn(BATCH, KEYS, WIDTH, dtype=torch.float64)
    with torch.set_grad_enabled(gradients):
        found = compact.train(training)(x, src_key_padding_mask=_padding())
        expected = plain.train()(x, src_key_padding_mask=_padding())  # the path of plain operations
    torch.testing.assert_close(found[~_padding()], expected[~_padding()], **SAME_FLOAT64)


@pytest.mark.parametrize("gradients", [True, False])
def test_an_encoder_whose_first_attention_was_assigned_by_hand_works_too(gradients):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 13, batch_first=True), 1).double().eval()
    encoder.layers[0].self_attn = CompactMultiheadAttention.from_module(encoder.layers[0].self_attn)
    with torch.set_grad_enabled(gradients):
        output = encoder(torch.randn(BATCH, KEYS, WIDTH, dtype=torch.float64), src_key_padding_mask=_padding())
    assert output.shape == (BATCH, KEYS, WIDTH)


@pytest.mark.parametrize("training", [True, False])
def test_inside_pytorchs_decoder_it_gives_the_same(training):
    torch.manual_seed(0)
    plain = nn.TransformerDecoderLayer(WIDTH, HEADS, 13, dropout=0.0).double().train(training)
    compact = nn.TransformerDecoderLayer(WIDTH, HEADS, 13, dropout=0.0).double().train(training)
    compact.load_state_dict(plain.state_dict())
    for name in ("self_attn", "multihead_attn"):
        replace_module(compact, name, CompactMultiheadAttention.from_module(compact.get_submodule(name)))
    target, memory = torch.randn(2, 7, BATCH, WIDTH, dtype=torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    found, expected = (layer(target, memory, tgt_mask=causal, tgt_is_causal=True) for layer in (compact, plain))
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_extra_keys_are_refused(option):
    with pytest.raises(SurgeryError, match=f"nn.MultiheadAttention with {option}=True cannot be compressed"):
        CompactMultiheadAttention.from_module(nn.MultiheadAttention(WIDTH, HEADS, **{option: True}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_causal": True}, "is_causal says something about attn_mask"),
        ({"attn_mask": torch.zeros(1, KEYS)}, r"attn_mask has shape \(1, 11\), not \(7, 11\) or \(15, 7, 11\)"),
        ({"key_padding_mask": torch.zeros(1, KEYS)}, r"key_padding_mask has shape \(1, 11\), not \(5, 11\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(options, message):
    module, compact = _pair()
    with pytest.raises(RuntimeError, match=message):
        compact(*_inputs(module), **options)


def test_it_is_rebuilt_from_its_record_and_weights_bit_for_bit():
    module, compact = _pair(kdim=7, vdim=5, bias=False, batch_first=True)
    rebuilt = CompactMultiheadAttention.from_record(json.loads(json.dumps(compact.record())), dtype=torch.float64)
    rebuilt.load_state_dict(compact.state_dict())
    inputs = _inputs(module)
    assert torch.equal(rebuilt(*inputs)[0], compact(*inputs)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 0}, "`num_heads`: Input should be greater than 0"),
        ({"scale": float("inf")}, "`scale`: Input should be a finite number"),
        ({"scale": "0.5"}, "`scale`: Input should be a valid number"),
        ({"bias": 1}, "`bias`: Input should be a valid boolean"),
        ({"num_heads": 1 << 20, "head_width": 1 << 20}, "the heads are too wide together"),
        ({"bias_k": True}, "`bias_k`: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        CompactMultiheadAttention.from_record(_pair()[1].record() | change)
    assert message in str(caught.value)
