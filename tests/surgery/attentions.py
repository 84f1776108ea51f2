"""Attention as people write it themselves, and small models around every kind of attention."""

from __future__ import annotations

import torch
from torch import nn

from compressor import AttentionParts

WIDTH, HEADS, HEAD, VALUE = 12, 4, 3, 5


def later(length):
    return torch.ones(length, length, dtype=torch.bool).triu(1)


class Inner(nn.Module):
    """The part that BERT calls `self`: queries, keys, values and the sizes."""

    def __init__(self, heads, bias, causal):
        super().__init__()
        self.causal = causal
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
        if self.causal:
            scores = scores.masked_fill(later(length), -1e4)
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

    def __init__(self, heads=HEADS, bias=True, causal=False):
        super().__init__()
        self.self, self.output = Inner(heads, bias, causal), Output(heads, bias)

    def forward(self, x, mask=None):
        return self.output(self.self(x, mask), x)


class Packed(nn.Module):
    """One layer for queries, keys and values."""

    PARTS = AttentionParts(query="qkv", key="qkv", value="qkv", output="proj", heads=("h", "groups"), widths=("inner",))

    def __init__(self, heads=HEADS, bias=True, causal=False):
        super().__init__()
        self.h = self.groups = heads
        self.causal = causal
        self.inner = heads * HEAD
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * self.inner, bias=bias), nn.Linear(self.inner, WIDTH, bias=bias)

    def forward(self, x, mask=None):
        parts = [part.unflatten(-1, (self.h, -1)).transpose(1, 2) for part in self.qkv(x).split(self.inner, -1)]
        allowed = None if mask is None else mask[:, None, None]
        if self.causal:
            earlier = ~later(x.size(1))
            allowed = earlier if allowed is None else allowed & earlier
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


class Encoder(nn.Module):
    """PyTorch's encoder, which runs a fused kernel where it can."""

    def __init__(self, *, batch_first=True, heads=HEADS, **options):
        super().__init__()
        self.batch_first = batch_first
        layer = nn.TransformerEncoderLayer(WIDTH, heads, 17, batch_first=batch_first, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first and not options)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x, mask=None):
        padding = None if mask is None else ~mask
        x = x if self.batch_first else x.transpose(0, 1)
        encoded = self.encoder(x, src_key_padding_mask=padding)
        encoded = encoded if self.batch_first else encoded.transpose(0, 1)
        return self.head(encoded if mask is None else encoded * mask[..., None])


class Decoder(nn.Module):
    """Attention to itself under a causal mask, and to what is given beside it."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 17, batch_first=True)
        self.decoder, self.head = nn.TransformerDecoder(layer, 2), nn.Linear(WIDTH, 2)

    def forward(self, x, mask=None):
        memory = x.flip(1) * 0.5
        causal = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
        padding = None if mask is None else ~mask
        return self.head(self.decoder(x, memory, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=padding))


class Widths(nn.Module):
    """Keys and values of other widths than the queries, and the mean of the attention weights given out."""

    def __init__(self, **options):
        super().__init__()
        self.keys, self.values = nn.Linear(WIDTH, 7), nn.Linear(WIDTH, 5)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=7, vdim=5, batch_first=True, **options)

    def forward(self, x, mask=None):
        padding = None if mask is None else ~mask
        return self.attention(x, self.keys(x), self.values(x), key_padding_mask=padding)


class Plain(nn.Module):
    """One attention, called with what it is told."""

    def __init__(self, heads=HEADS, options=None, **calls):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, heads, batch_first=True, **(options or {}))
        self.calls = calls

    def forward(self, x, mask=None):
        return self.attention(x, x, x, **self.calls)


def bias_by_head(part, model):
    """A projection's bias, detached: (h, d) for queries, keys and values, (E_o,) for the output; None without one."""
    if part.bias is None:
        return None
    bias = model.get_parameter(part.bias).detach()
    return bias if part.axis == 1 else bias.narrow(0, part.bias_start, part.heads * part.width).view(-1, part.width)


def written_out(site, model, query, key, value, heads=range(HEADS)):
    """Attention written out head by head, from nothing but what the site says."""
    total = 0.0
    for head in heads:
        projected = []
        for part, given in zip(site.projections[:3], (query, key, value), strict=True):
            bias = bias_by_head(part, model)
            projected.append(given @ part.by_head(model)[head].T + (0.0 if bias is None else bias[head]))
        q, k, v = projected
        total = total + ((q @ k.mT) / site.head_width**0.5).softmax(-1) @ v @ site.output.by_head(model)[head].T
    bias = bias_by_head(site.output, model)
    return total if bias is None else total + bias
