"""A learned query in third-party attention: sums over earlier positions give what attention over all of them gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError
from compressor.nn.attention import prefix
from compressor.nn.attention.learned_query import LearnedQuery, LearnedQueryRecord

WIDTH, HEADS, HEAD, VALUE, BATCH, LENGTH, SCALE = 7, 3, 5, 2, 4, 13, 0.37


def layer(*, own_keys, bias=True):
    torch.manual_seed(0)
    rows = HEADS * (2 * HEAD + VALUE) if own_keys else HEADS * HEAD
    sizes = {"num_heads": HEADS, "head_width": HEAD, "value_head_width": VALUE, "scale": SCALE, "bias": bias}
    paths = {"key": None if own_keys else "k", "value": None if own_keys else "v", "output": "o"}
    record = LearnedQueryRecord(**sizes, batch_first=True, input_width=WIDTH, **paths)
    made = LearnedQuery.from_layer(nn.Linear(WIDTH, rows, bias=bias, dtype=torch.float64), record)
    with torch.no_grad():
        made.query.normal_()
    return made


def projections(own, x, key, value):
    """Queries, keys and values (B, h, T, .) as the author's code makes them."""
    sizes = [HEADS * HEAD, HEADS * HEAD, HEADS * VALUE]
    parts = own(x).split(sizes, -1) if key is None else (own(x), key(x), value(x))
    return [part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts]


def causal(own, x, key, value):
    """softmax(s q k^T) v over the positions up to each one."""
    q, k, v = projections(own, x, key, value)
    scores = SCALE * q @ k.mT
    hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("chunk", [1, 2, LENGTH])
@pytest.mark.parametrize("own_keys", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_chained_steps_are_causal_attention_with_that_query(chunk, own_keys, bias):
    own = layer(own_keys=own_keys, bias=bias)
    key, value = (nn.Linear(WIDTH, HEADS * size, bias=bias, dtype=torch.float64) for size in (HEAD, VALUE))
    x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
    state, found = own.initial_state(BATCH), []
    assert [part.shape for part in state] == [(BATCH, HEADS, VALUE), (BATCH, HEADS), (BATCH, HEADS)]
    for part in x.split(chunk, 1):
        values = own.own_values(part) if own_keys else value(part)
        context, state = own.step(part, values, None if own_keys else key, state)
        found.append(context)
    wanted = causal(own, x, None if own_keys else key, value)
    torch.testing.assert_close(torch.cat(found, 1), wanted, atol=1e-10, rtol=1e-10)


def test_the_query_is_the_same_at_every_position_and_begins_as_the_bias():
    own = layer(own_keys=False)
    with torch.no_grad():
        own.query.zero_()
    queries = own(torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64))
    torch.testing.assert_close(queries, own.bias.expand(BATCH, LENGTH, -1), rtol=0, atol=0)
    assert own.paths() == {"key": "k", "value": "v", "output": "o"}
    assert layer(own_keys=True).paths() == {"output": "o"}


def test_half_precision_is_summed_in_single():
    own = layer(own_keys=True).half()
    state = own.initial_state(BATCH)
    assert {part.dtype for part in state} == {prefix.working_type(own.weight)} == {torch.float32}
    x = torch.randn(BATCH, 1, WIDTH).half()
    context, _ = own.step(x, own.own_values(x), None, state)
    assert context.dtype == torch.float16


def test_keys_and_values_are_its_own_both_or_neither():
    record = layer(own_keys=False).record()
    again = LearnedQuery.from_record(record, dtype=torch.float64)
    assert [parameter.shape for parameter in again.parameters()] == [
        parameter.shape for parameter in layer(own_keys=False).parameters()
    ]
    with pytest.raises(CheckpointError, match="both, or neither"):
        LearnedQuery.from_record(record | {"key": None})
