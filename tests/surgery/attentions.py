"""Attention as people write it themselves, and small models around every kind of attention."""

from __future__ import annotations

import torch
from torch import nn

from compressor import AttentionParts

WIDTH, HEADS, HEAD, VALUE = 12, 4, 3, 5


class Inner(nn.Module):
    """The part that BERT calls `self`: queries, keys, values and the sizes."""

    def __init__(self, heads, bias):
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, HEAD
        self.all_head_size = heads * HEAD
        self.query = nn.Linear(WIDTH, heads * HEAD, bias=bias)
        self.key = nn.Linear(WIDTH, heads * HEAD, bias=bias)
        self.value = nn.Linear(WIDTH, heads * VALUE, bias=bias)

    def forward(self, x, mask):
        batch, length, _ = x.shape

        def split(part):
            return part.view(batch, length, self.num_attention_heads, -1).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(-1, -2) / self.attention_head_size**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -1e4)
        return (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, -1)


class Output(nn.Module):
    def __init__(self, heads, bias):
        super().__init__()
        self.dense = nn.Linear(heads * VALUE, WIDTH, bias=bias)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, context, x):
        return self.norm(x + self.dense(context))


class Nested(nn.Module):
    """As BERT has it: the four layers lie in two modules."""

    PARTS = AttentionParts(
        query="self.query",
        key="self.key",
        value="self.value",
        output="output.dense",
        heads="self.num_attention_heads",
        widths=("self.all_head_size",),
    )

    def __init__(self, heads=HEADS, bias=True):
        super().__init__()
        self.self, self.output = Inner(heads, bias), Output(heads, bias)

    def forward(self, x, mask=None):
        return self.output(self.self(x, mask), x)


class Packed(nn.Module):
    """One layer for queries, keys and values."""

    PARTS = AttentionParts(query="qkv", key="qkv", value="qkv", output="proj", heads=("h", "groups"), widths=("inner",))

    def __init__(self, heads=HEADS, bias=True):
        super().__init__()
        self.h = self.groups = heads
        self.inner = heads * HEAD
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * self.inner, bias=bias), nn.Linear(self.inner, WIDTH, bias=bias)

    def forward(self, x, mask=None):
        parts = [part.unflatten(-1, (self.h, -1)).transpose(1, 2) for part in self.qkv(x).split(self.inner, -1)]
        allowed = None if mask is None else mask[:, None, None]
        context = nn.functional.scaled_dot_product_attention(*parts, attn_mask=allowed)
        return x + self.proj(context.transpose(1, 2).flatten(2))


class Stack(nn.Module):
    """Two attentions of a kind, and a layer behind them."""

    def __init__(self, kind=Nested, **options):
        super().__init__()
        self.layers = nn.ModuleList(kind(**options) for _ in range(2))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x)


def declared(kind):
    return {"layers.*": kind.PARTS} if kind is Packed else {"re:layers\\.[0-9]+": kind.PARTS}


def randomized(model, seed=0):
    """Every weight and bias drawn anew: PyTorch starts with biases of 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model.eval()
