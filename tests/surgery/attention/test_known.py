"""Attention as common packages write it loses heads and rank without a declaration."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from compressor.errors import MethodError
from compressor.methods.base import State
from compressor.methods.heads import Heads
from compressor.methods.low_rank_attention import LowRankAttention
from compressor.methods.magnitude import Magnitude
from compressor.surgery.attention.known import with_known
from tests.methods.conftest import SignTask, make_context
from tests.surgery.attentions import Nested, Stack
from tests.surgery.rebuilding import rebuilt_from

CHANNELS, HEADS, HEAD = 5, 4, 3
WIDTH = HEADS * HEAD


class ByWidth(nn.Module):
    """As Llama has it: only the width of a head is a number; with `groups` heads share keys and values."""

    def __init__(self, groups=1):
        super().__init__()
        self.head_dim, self.groups = HEAD, groups
        self.q_proj, self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH // groups, bias=False) for _ in range(2))

    def forward(self, x):
        q, k, v = (f(x).view(*x.shape[:2], -1, HEAD).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        y = scaled_dot_product_attention(q, k, v, enable_gqa=self.groups > 1)
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class InOne(nn.Module):
    """As GPT-2 and nanoGPT have it: one layer for all three, split by a number."""

    def __init__(self):
        super().__init__()
        self.n_head, self.n_embd = HEADS, WIDTH
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        heads = (part.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in self.c_attn(x).split(self.n_embd, 2))
        y = scaled_dot_product_attention(*heads, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class Biased(nn.Module):
    """As T5 has it: a bias for each head is added to the scores, made outside for all layers."""

    def __init__(self):
        super().__init__()
        self.n_heads, self.inner_dim = HEADS, WIDTH
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x, bias=None):
        q, k, v = (f(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.o(y.transpose(1, 2).reshape(*x.shape[:2], self.inner_dim))


class Tagger(nn.Module):
    """Two attentions and a feed-forward block between a layer in front and a head."""

    def __init__(self, *layers, bias=False):
        super().__init__()
        self.enter, self.layers = nn.Linear(CHANNELS, WIDTH), nn.ModuleList(layers)
        self.up, self.down, self.head = nn.Linear(WIDTH, 11), nn.Linear(11, WIDTH), nn.Linear(WIDTH, 2)
        self.register_buffer("bias", torch.ones(HEADS, 1, 1) if bias else None)

    def forward(self, x):
        x = torch.tanh(self.enter(x))
        for index, layer in enumerate(self.layers):
            x = x + (layer(x, self.bias) if self.bias is not None and index else layer(x))
        return self.head(x + self.down(torch.relu(self.up(x)))).mean(1)


KINDS = {
    "by width": lambda: Tagger(ByWidth(), ByWidth()),
    "in one": lambda: Tagger(InOne(), InOne()),
    "as BERT": lambda: Tagger(*(_of_bert() for _ in range(2))),
    "a bias": lambda: Tagger(Biased(), Biased(), bias=True),
    "shared keys": lambda: Tagger(ByWidth(2), ByWidth(2)),
}


def _of_bert():
    return Stack(Nested).layers[0]


def state_of(kind):
    torch.manual_seed(0)
    model = KINDS[kind]().double().eval()
    return State(model), make_context(model, Task())


class Task(SignTask):
    """In float64."""

    def example(self, batch, length):
        return (torch.randn(batch, length, CHANNELS, dtype=torch.float64),)

    def batches(self, generator):
        return (((x.double(),), target) for (x,), target in super().batches(generator))


@pytest.fixture(autouse=True)
def _width(monkeypatch):
    monkeypatch.setattr("tests.surgery.attentions.WIDTH", WIDTH)


@pytest.mark.parametrize("kind", ["by width", "in one", "as BERT"])
def test_half_of_the_heads_go_and_the_structure_is_rebuilt(kind):
    state, context = state_of(kind)
    step = Heads(ratio=0.5, score="weight", compensate=False)
    step.check_task(state.model, context.task)
    done = step.apply(state, context)
    assert done.facts == {"heads before": 8.0, "heads after": 4.0}
    again = rebuilt_from(done.state, KINDS[kind]().double().eval())
    x = torch.randn(2, 7, CHANNELS, dtype=torch.float64)
    assert torch.equal(again(x), done.state.model(x))


@pytest.mark.parametrize("kind", ["by width", "in one", "as BERT"])
def test_heads_that_give_nothing_leave_without_a_trace(kind):
    state, context = state_of(kind)
    named = with_known(state.model, {})
    for name, parts in named.items():
        output = state.model.get_submodule(f"{name}.{parts.output}")
        with torch.no_grad():
            output.weight[:, : output.in_features // 2] = 0.0
    before = copy.deepcopy(state.model)
    done = Heads(ratio=0.5, score="weight", compensate=False).apply(state, context).state.model
    x = torch.randn(2, 7, CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(done(x), before(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_low_rank_and_the_feed_forward_width_need_no_declaration(kind):
    state, context = state_of(kind)
    cut = LowRankAttention(rank=2).apply(state, context)
    assert {change.name.partition(".")[0] for change in cut.changes} == {"layers"}
    narrow = Magnitude(prune="units", ratio=0.5, targets=["*"], compensate=False).apply(state, context)
    assert (narrow.state.model.up.out_features, narrow.state.model.down.in_features) == (6, 6)


def test_one_attention_that_must_keep_its_heads_does_not_stop_the_other():
    state, context = state_of("a bias")
    done = Heads(ratio=0.5, score="weight", compensate=False).apply(state, context)
    assert [skip.name for skip in done.skipped] == ["layers.1"]
    assert "cannot run" in done.skipped[0].reason
    assert done.facts["heads after"] == 6.0


def test_shared_keys_are_left_alone_with_the_reason():
    state, context = state_of("shared keys")
    with pytest.raises(MethodError, match="heads that share keys are not handled"):
        Heads(ratio=0.5).apply(state, context)
