"""An Aaren with a memory cache: an average a segment for each head, in every form and with padding."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from compressor.nn.attention import prefix
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.cached_averages import STATES
from compressor.nn.structure import apply_record, replace_record
from tests.tolerances import SAME_FLOAT64

WIDTH, HEADS, VALUES, BATCH, LENGTH = 12, 3, 2, 5, 23
SLOTS, SEGMENT = 2, 3


def layer(*, slots=SLOTS, segment=SEGMENT, **options):
    torch.manual_seed(0)
    sizes = {"query_width": 7, "input_width": WIDTH, "head_width": 5, "value_head_width": VALUES, "output_width": 13}
    cache = {"memory_cache": slots, "cache_segment": segment}
    own = AarenAttention(HEADS, batch_first=True, dtype=torch.float64, **(sizes | cache | options))
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.normal_(std=0.7)
    return own


def inputs(length=LENGTH):
    torch.manual_seed(1)
    return torch.randn(BATCH, length, WIDTH, dtype=torch.float64, requires_grad=True)


def naive(own, x, padding=None):
    """Each head, each position by itself: a softmax over score and gate of all positions so far."""
    query = own.q_proj(own.query).view(HEADS, -1)
    keys, values = (part(x).unflatten(-1, (HEADS, -1)) for part in (own.k_proj, own.v_proj))
    scores = own.scale * torch.einsum("hd,bnhd->bnh", query, keys)
    if padding is not None:
        scores = scores.masked_fill(padding[..., None], prefix.nothing(scores.dtype))
    asked, described = own.cache.ask(x).unflatten(-1, (HEADS, -1)), own.cache.describe(x)
    if padding is not None:
        described = described.masked_fill(padding[..., None], 0.0)
    rows = []
    for t in range(x.shape[1]):
        gates = []
        for i in range(t + 1):
            of = i // SEGMENT
            if t // SEGMENT - of > SLOTS:
                gates.append(torch.zeros(BATCH, HEADS, dtype=x.dtype))
            else:
                mean = described[:, of * SEGMENT : min(t + 1, (of + 1) * SEGMENT)].mean(1)
                gates.append((asked[:, t] * mean[:, None]).sum(-1))
        shares = (scores[:, : t + 1] + torch.stack(gates, 1)).softmax(1)
        rows.append(torch.einsum("bnh,bnhd->bhd", shares, values[:, : t + 1]).flatten(1))
    return own.out_proj(torch.stack(rows, 1))


def stepped(own, x, chunk):
    state, outputs = own.initial_state(BATCH), []
    shapes = [part.shape for part in state]
    for part in x.split(chunk, 1):
        output, state = own.step(part, state)
        outputs.append(output)
    assert [part.shape for part in state] == shapes
    return torch.cat(outputs, 1)


def test_whole_and_step_are_the_naive_form_and_so_are_their_gradients():
    own, x = layer(), inputs()
    weights = [x, *own.parameters()]
    expected = naive(own, x)
    wanted = torch.autograd.grad(expected.square().mean(), weights)
    for output in (own(x, x, x)[0], stepped(own, x, 1), stepped(own, x, 4)):
        torch.testing.assert_close(output, expected, **SAME_FLOAT64)
        found = torch.autograd.grad(output.square().mean(), weights)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-9)
    assert all(bool(gradient.any()) for gradient in wanted)


@pytest.mark.parametrize("kind", ["truth", "numbers"])
@pytest.mark.parametrize("place", ["behind", "in front", "between"])
def test_padded_positions_take_no_part(kind, place):
    own, x = layer(), inputs()
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    padding[1:, {"behind": slice(17, None), "in front": slice(0, 4), "between": slice(7, 12)}[place]] = True
    mask = padding if kind == "truth" else torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
    output, expected = own(x, x, x, key_padding_mask=mask)[0], naive(own, x, padding)
    seen = padding.logical_not().cumsum(1) > 0
    torch.testing.assert_close(output[seen], expected[seen], **SAME_FLOAT64)
    torch.testing.assert_close(output[~seen], own.out_proj.bias.expand_as(output[~seen]), **SAME_FLOAT64)


def test_with_a_gate_of_0_it_is_the_aaren_without():
    own, x = layer(), inputs()
    nn.init.zeros_(own.cache.ask.weight)
    nn.init.zeros_(own.cache.ask.bias)
    plain = layer(slots=0)
    plain.load_state_dict({name: weight for name, weight in own.state_dict().items() if "cache." not in name})
    torch.testing.assert_close(own(x, x, x)[0], plain(x, x, x)[0], **SAME_FLOAT64)


def test_its_states_are_named_and_as_many_as_places():
    own = layer()
    sizes = {name: tuple(part.shape) for name, part in zip(own.state_names, own.initial_state(4), strict=True)}
    places, width = SLOTS + 2, own.cache.width
    assert tuple(sizes) == STATES
    assert sizes["sums"] == (4, HEADS, 1, places, VALUES)
    assert sizes["weights"] == sizes["largest"] == (4, HEADS, 1, places)
    assert (sizes["described"], sizes["count"]) == ((4, places - 1, width), (4, 1))


def test_half_precision_keeps_its_state_in_float32():
    own, x = layer().bfloat16(), inputs().detach().bfloat16()
    with torch.no_grad():
        own.cache.ask.weight.mul_(0.1)  # gates are products of rounded numbers
    output, state = own.step(x, own.initial_state(BATCH))
    assert (output.dtype, {part.dtype for part in state}) == (torch.bfloat16, {torch.float32})
    torch.testing.assert_close(output, own(x, x, x)[0], atol=6e-2, rtol=3e-2)


def test_it_is_rebuilt_from_its_record_in_the_place_of_an_attention():
    own, x = layer(output_width=WIDTH), inputs()
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(WIDTH, HEADS)}).double()
    apply_record(model, json.loads(json.dumps(replace_record("attention", own))))
    model["attention"].load_state_dict(own.state_dict())
    assert "2 slots of 3" in repr(model["attention"])
    torch.testing.assert_close(model["attention"](x, x, x)[0], own(x, x, x)[0], atol=0, rtol=0)


def test_an_attention_gets_one_beside_its_own_weights():
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    own = AarenAttention.from_attention(attention, memory_cache=SLOTS, cache_segment=SEGMENT)
    own.cache.start(torch.randn(50, WIDTH), torch.Generator().manual_seed(0))
    plain, x = AarenAttention.from_attention(attention), inputs()
    torch.testing.assert_close(own(x, x, x)[0], plain(x, x, x)[0], **SAME_FLOAT64)
    assert own.record() == {**plain.record(), "memory_cache": SLOTS, "cache_segment": SEGMENT}
