"""An Aaren is called as nn.MultiheadAttention is, sees no later input, and runs step by step with a fixed state."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, MethodError, SurgeryError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.causal_masks import is_causal_mask
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.structure import apply_record, replace_module, replace_record
from tests.tolerances import SAME_FLOAT64

WIDTH, HEADS, BATCH, LENGTH = 12, 3, 5, 11
INF = float("-inf")


def _layer(batch_first=True, **options):
    torch.manual_seed(0)
    sizes = {
        "query_width": 7, "input_width": WIDTH, "head_width": 5, "value_head_width": 2, "output_width": 13,
    } | options  # fmt: skip
    layer = AarenAttention(HEADS, batch_first=batch_first, dtype=torch.float64, **sizes)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.7)
    return layer


def _inputs(length=LENGTH):
    return torch.randn(BATCH, length, WIDTH, dtype=torch.float64)


def _causal(length=LENGTH, dtype=torch.bool):
    mask = torch.ones(length, length, dtype=torch.bool).triu(1)
    return mask if dtype == torch.bool else torch.zeros(length, length, dtype=dtype).masked_fill(mask, INF)


def _padding():
    return torch.arange(LENGTH) >= torch.tensor([11, 3, 1, 7, 5])[:, None]


def _explicit(layer, x, padding=None):
    """Softmax attention of the projected query to the projected keys, head by head, one prefix at a time."""
    query = layer.q_proj(layer.query).view(HEADS, -1)
    keys = layer.k_proj(x).unflatten(-1, (HEADS, -1))  # (B, N, h, d)
    values = layer.v_proj(x).unflatten(-1, (HEADS, -1))
    scores = layer.scale * torch.einsum("hd,bnhd->bnh", query, keys)
    if padding is not None:
        scores = scores.masked_fill(padding[..., None], INF)
    rows = [
        torch.einsum("bnh,bnhd->bhd", scores[:, : end + 1].softmax(1), values[:, : end + 1]).flatten(1)
        for end in range(x.shape[1])
    ]
    return layer.out_proj(torch.stack(rows, 1))


def test_each_output_is_softmax_attention_of_the_learned_query_to_the_inputs_so_far():
    layer, x = _layer(), _inputs()
    output, weights = layer(x, x, x)
    assert weights is None
    torch.testing.assert_close(output, _explicit(layer, x), **SAME_FLOAT64)


@pytest.mark.parametrize("bias", [True, False])
def test_all_weights_get_the_gradients_of_the_explicit_form(bias):
    layer, x = _layer(bias=bias), _inputs()
    gradients = []
    for output in (layer(x, x, x)[0], _explicit(layer, x)):
        layer.zero_grad()
        output.square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in layer.named_parameters()})
    for name, found in gradients[0].items():
        torch.testing.assert_close(found, gradients[1][name], atol=1e-9, rtol=1e-9, msg=name)
    assert gradients[0]["query"].any()


def test_outputs_depend_on_earlier_inputs_only():
    layer, x = _layer(), _inputs()
    later = x.clone()
    later[:, 6:] += 1.0
    before, after = layer(x, x, x)[0], layer(later, later, later)[0]
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(-1).any()


@pytest.mark.parametrize("kind", ["truth", "numbers"])
def test_padded_positions_take_no_part(kind):
    layer, x, padding = _layer(), _inputs(), _padding()
    mask = padding if kind == "truth" else torch.zeros(padding.shape).masked_fill(padding, INF)
    output = layer(x, x, x, key_padding_mask=mask)[0]
    torch.testing.assert_close(output, _explicit(layer, x, padding), **SAME_FLOAT64)


@pytest.mark.parametrize("kind", ["truth", "numbers"])
def test_padding_in_front_leaves_the_rest_as_it_is_alone(kind):
    layer, x = _layer(), _inputs().requires_grad_()
    padding = torch.arange(LENGTH).expand(BATCH, -1) < 4
    mask = padding if kind == "truth" else torch.zeros(padding.shape).masked_fill(padding, INF)
    output = layer(x, x, x, key_padding_mask=mask)[0]
    torch.testing.assert_close(output[:, 4:], layer(*[x[:, 4:]] * 3)[0], **SAME_FLOAT64)
    torch.testing.assert_close(output[:, 0], layer.out_proj.bias.expand(BATCH, -1), **SAME_FLOAT64)
    output.sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[:, :4].any()


def test_time_first_and_unbatched_calls_give_the_same():
    layer, time_first, x = _layer(), _layer(batch_first=False), _inputs()
    expected = layer(x, x, x, key_padding_mask=_padding())[0]
    swapped = x.transpose(0, 1)
    found = time_first(swapped, swapped, swapped, key_padding_mask=_padding())[0]
    torch.testing.assert_close(found.transpose(0, 1), expected, **SAME_FLOAT64)
    for one in (layer, time_first):
        alone = one(x[1], x[1], x[1], key_padding_mask=_padding()[1])[0]
        torch.testing.assert_close(alone, expected[1], **SAME_FLOAT64)


@pytest.mark.parametrize(
    "mask",
    [
        _causal(),
        _causal(dtype=torch.float64),
        _causal(dtype=torch.float64).clamp(min=-1e9),
        _causal().expand(15, -1, -1),
    ],
    ids=["truth", "numbers", "large numbers", "every head"],
)
@pytest.mark.parametrize("hint", [True, False])
def test_a_causal_mask_changes_nothing(mask, hint):
    layer, x = _layer(), _inputs()
    assert torch.equal(layer(x, x, x, attn_mask=mask, is_causal=hint)[0], layer(x, x, x)[0])


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(LENGTH, LENGTH, dtype=torch.bool),
        _causal() | torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(-4),
        _causal(dtype=torch.float64) - 0.1 * torch.arange(LENGTH),
        torch.zeros(LENGTH, LENGTH),
        torch.stack([_causal()] * 14 + [~_causal()]),
    ],
    ids=["nothing hidden", "window", "slopes", "zeros", "one head of many"],
)
def test_any_other_mask_is_refused(mask):
    assert not is_causal_mask(mask)
    x = _inputs()
    with pytest.raises(MethodError, match="causal as it stands and takes no other attn_mask") as caught:
        _layer()(x, x, x, attn_mask=mask)
    assert "key_padding_mask" in caught.value.hint


def test_attention_from_one_sequence_to_another_is_refused():
    with pytest.raises(MethodError, match="not from one to another: query, key and value are"):
        _layer()(_inputs(4), _inputs(), _inputs())


@pytest.mark.parametrize("size", [1, 4])
def test_steps_give_what_the_whole_sequence_gives(size):
    layer, x = _layer(), _inputs(29)
    state, outputs = layer.initial_state(BATCH), []
    assert [tuple(part.shape) for part in state] == [(BATCH, HEADS, 2), (BATCH, HEADS), (BATCH, HEADS)]
    for part in x.split(size, 1):
        output, state = layer.step(part, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x, x, x)[0], **SAME_FLOAT64)
    assert [tuple(part.shape) for part in state] == [(BATCH, HEADS, 2), (BATCH, HEADS), (BATCH, HEADS)]


def test_half_precision_keeps_its_state_in_float32():
    layer, x = _layer().bfloat16(), _inputs(600).bfloat16()
    state = layer.initial_state(BATCH)
    output, state = layer.step(x, state)
    assert (output.dtype, {part.dtype for part in state}) == (torch.bfloat16, {torch.float32})
    torch.testing.assert_close(output, layer(x, x, x)[0], atol=2e-2, rtol=2e-2)


def test_under_autocast_scores_stay_in_float32():
    layer, x = _layer().float(), _inputs().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x, x, x)[0]
        output.sum().backward()
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), _explicit(layer, x), atol=0.1, rtol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_an_encoder_block_has_the_512_parameters_more_that_the_paper_says():
    block = nn.TransformerEncoderLayer(512, 8, 2048)
    before = sum(parameter.numel() for parameter in block.parameters())
    block.self_attn = AarenAttention.from_attention(block.self_attn)
    after = sum(parameter.numel() for parameter in block.parameters())
    assert (before, after) == (3_152_384, 3_152_896)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layers_of_an_attention_are_carried_over(compact, bias):
    attention = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True).double()
    attention.in_proj_weight.requires_grad_(False)
    old = CompactMultiheadAttention.from_module(attention)
    layer = AarenAttention.from_attention(old if compact else attention)
    assert (layer.scale, layer.batch_first) == (0.5, True)
    for name, parameter in old.named_parameters():
        assert torch.equal(layer.get_parameter(name), parameter)
        assert layer.get_parameter(name).requires_grad == parameter.requires_grad
    x = _inputs()
    torch.testing.assert_close(layer(x, x, x)[0], _explicit(layer, x), **SAME_FLOAT64)


def test_attention_with_extra_keys_or_other_widths_cannot_become_one():
    with pytest.raises(SurgeryError, match="add_zero_attn=True"):
        AarenAttention.from_attention(nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True))
    with pytest.raises(MethodError, match="keys of 7 features and values of 5 are not self-attention"):
        AarenAttention.from_attention(nn.MultiheadAttention(WIDTH, HEADS, kdim=7, vdim=5))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layers", [[0], [1], [0, 1]], ids=str)
def test_inside_pytorchs_encoder_it_takes_the_path_of_plain_operations(layers, training, gradients):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 13, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).double()
    for index in layers:
        old = encoder.layers[index].self_attn
        replace_module(encoder, f"layers.{index}.self_attn", AarenAttention.from_attention(old))
    x = _inputs()
    with torch.set_grad_enabled(gradients):
        found = encoder.train(training)(x, mask=_causal(), src_key_padding_mask=_padding(), is_causal=True)
        alone = encoder.train(training)(x[:1, :4], mask=_causal(4), is_causal=True)
    torch.testing.assert_close(found[:1, :4], alone, **SAME_FLOAT64)
    assert found[~_padding()].isfinite().all()


def test_it_is_rebuilt_from_its_record_in_the_place_of_an_attention():
    layer, x = _layer(output_width=WIDTH), _inputs()
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(WIDTH, HEADS)}).double()
    apply_record(model, json.loads(json.dumps(replace_record("attention", layer))))
    model["attention"].load_state_dict(layer.state_dict())
    assert torch.equal(model["attention"](x, x, x)[0], layer(x, x, x)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 0}, "`num_heads`: Input should be greater than 0"),
        ({"scale": float("nan")}, "`scale`: Input should be"),
        ({"num_heads": 1 << 20, "head_width": 1 << 20}, "the heads are too wide together"),
        ({"dropout": 0.1}, "`dropout`: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        AarenAttention.from_record(_layer().record() | change)
    assert message in str(caught.value)


def test_in_bfloat16_on_an_accelerator_it_trains(accelerator):
    layer, x = _layer().float().to(accelerator), _inputs(1000).float().to(accelerator)
    with torch.autocast(accelerator.type, dtype=torch.bfloat16):
        output = layer(x, x, x)[0]
        output.square().mean().backward()
    torch.testing.assert_close(output.float(), _explicit(layer, x), atol=0.1, rtol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
