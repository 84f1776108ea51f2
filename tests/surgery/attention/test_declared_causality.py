"""What third-party attention does with positions is found out by running it: weights, scale, padding, order of axes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import AttentionParts
from compressor.surgery.attention.declared_causality import examine
from compressor.surgery.attention.declared_sites import declared_site

WIDTH, HEADS, HEAD, VALUE = 6, 2, 4, 3
PARTS = AttentionParts(query="q", key="k", value="v", output="o", heads="heads")


def causal(scores):
    return scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))


class Attention(nn.Module):
    """As its author may have it; a test decides on scores, weights and what comes of them."""

    def __init__(self, *, scale=HEAD**-0.5, mask=causal, time_first=False, weigh=None, after=None, keys=None):
        super().__init__()
        self.q, self.k = nn.Linear(WIDTH, HEADS * HEAD), nn.Linear(WIDTH, HEADS * HEAD)
        self.v, self.o = nn.Linear(WIDTH, HEADS * VALUE), nn.Linear(HEADS * VALUE, WIDTH)
        self.heads, self.scale, self.mask, self.time_first = HEADS, scale, mask, time_first
        self.weigh, self.after, self.keys = weigh, after, keys

    def forward(self, x, real=None):
        swap = (lambda part: part.transpose(0, 1)) if self.time_first else (lambda part: part)
        memory = x if self.keys is None else self.keys(x)
        parts = (swap(self.q(x)), swap(self.k(memory)), swap(self.v(memory)))
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        scores = self.mask(self.scale * q @ k.mT)
        if real is not None:
            scores = scores.masked_fill(~real[:, None, None], float("-inf"))
        weights = scores.softmax(-1)
        weights = weights if self.weigh is None else self.weigh(weights)
        context = (weights @ v).transpose(1, 2).flatten(2)
        return self.o(swap(context if self.after is None else self.after(context)))


class Model(nn.Module):
    def __init__(self, attention, calls=1):
        super().__init__()
        self.attention, self.calls = attention, calls

    def forward(self, x, real=None):
        for _ in range(self.calls):
            x = self.attention(x, real)
        return x


def found(attention, *batches, calls=1, advance=lambda: None):
    torch.manual_seed(0)
    model = Model(attention, calls)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.7 * torch.randn(weight.shape))
    site = declared_site("attention", attention, PARTS)
    given = batches or ((torch.randn(3, 7, WIDTH),), (torch.randn(2, 5, WIDTH),))
    return examine(model, site, given, advance)


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("scale", [HEAD**-0.5, 0.3, 1.0, 2.0])
def test_causal_attention_is_known_with_its_scale_and_the_order_of_its_axes(time_first, scale):
    told = []
    finding = found(Attention(scale=scale, time_first=time_first), calls=2, advance=lambda: told.append(1))
    assert finding.reason is None
    assert finding.batch_first == (not time_first)
    assert finding.scale == (scale if scale == HEAD**-0.5 else pytest.approx(scale, rel=1e-4))
    assert (len(finding.calls), len(told)) == (4, 2)
    assert bool(finding.calls[0].real.all())
    assert finding.calls[0].real.shape == ((7, 3) if time_first else (3, 7))


def test_positions_that_no_later_one_looks_at_are_padding():
    real = torch.ones(3, 7, dtype=torch.bool)
    real[0, 4:], real[1, 6:] = False, False
    finding = found(Attention(), (torch.randn(3, 7, WIDTH), real))
    assert finding.reason is None
    assert torch.equal(finding.calls[0].real, real)
    assert finding.scale == HEAD**-0.5
    first = real.flip(1)  # rows that see nothing give NaN
    finding = found(Attention(), (torch.randn(3, 7, WIDTH), first))
    assert torch.equal(finding.calls[0].real, first)


def late(scores):
    """Hides the first position from the last one."""
    scores = causal(scores).clone()
    scores[..., -1, 0] = float("-inf")
    return scores


def windowed(scores):
    return causal(scores).masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).tril(-3), float("-inf"))


def future(width):
    return lambda scores: scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(width), float("-inf"))


OTHER_WEIGHTS = "its weights are not the softmax of s q k^T"
HIDDEN = "it hides some earlier positions from some later ones"
LATER = "it shows positions that come later"
NOT_VALUES = "what its output projection is given is not its values weighted by a softmax"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mask": lambda scores: scores}, LATER),
        ({"mask": future(2)}, LATER),
        ({"mask": future(6)}, LATER),
        ({"mask": late}, HIDDEN),
        ({"mask": windowed}, HIDDEN),
        ({"mask": lambda scores: causal(5 * torch.tanh(scores / 5))}, OTHER_WEIGHTS),
        ({"mask": lambda scores: causal(scores + torch.arange(scores.size(-1)))}, OTHER_WEIGHTS),
        ({"mask": lambda scores: causal(scores * torch.tensor([1.0, 2.0])[:, None, None])}, OTHER_WEIGHTS),
        ({"mask": lambda scores: causal(scores * 0)}, OTHER_WEIGHTS),
        ({"weigh": lambda weights: 0.9 * weights}, NOT_VALUES),
        ({"after": lambda context: context.flip(-1)}, NOT_VALUES),
        ({"after": lambda context: context + 1}, NOT_VALUES),
        ({"keys": lambda x: x.flip(1)}, "it attends from one sequence to another (cross-attention)"),
        ({"keys": lambda x: x[:, 1:]}, "it attends from one sequence to another (cross-attention)"),
        ({"mask": lambda scores: causal(scores + scores.mean())}, None),  # the same for all scores of a row
    ],
)
def test_what_is_no_causal_self_attention_is_told_by_its_kind(options, reason):
    finding = found(Attention(**options))
    assert reason is None if finding.reason is None else finding.reason.startswith(reason)


def test_attention_that_is_never_called_or_sees_one_position_shows_nothing():
    finding = found(Attention(), (torch.randn(3, 1, WIDTH),))
    assert finding.reason.startswith("every call has one position only")
    finding = found(Attention(mask=lambda scores: scores.masked_fill(~torch.eye(scores.size(-1)).bool(), -torch.inf)))
    assert finding.reason.startswith("every call has one position only, or looks at that one only")
    finding = found(Attention(), calls=0)
    assert finding.reason == "it is never called as a module, so its masks cannot be seen"
    assert (finding.calls, finding.scale) == ((), HEAD**-0.5)


def test_a_layer_that_is_called_twice_in_one_call_is_told():
    class Twice(Attention):
        def forward(self, x, real=None):
            return super().forward(x + self.q(x)[..., :WIDTH], real)

    reason = found(Twice()).reason
    assert reason.startswith("its `q`, a Linear, is called 2 times in one call")


def test_what_is_not_a_batch_of_sequences_is_told_with_its_shapes():
    class Single(Attention):
        def forward(self, x, real=None):
            q, k, v = self.q(x[0]), self.k(x[0]), self.v(x[0])
            return self.o((q @ k.mT).softmax(-1) @ v)

    assert found(Single(), (torch.randn(3, 7, WIDTH),)).reason.startswith(
        "its projections are given (7, 6) and (7, 6), not a batch of sequences"
    )


def test_looking_leaves_the_random_numbers_of_the_model_as_they_were():
    torch.manual_seed(3)
    attention = Attention()
    site = declared_site("attention", attention, PARTS)
    batches, before = ((torch.randn(3, 7, WIDTH),),), torch.get_rng_state()
    examine(Model(attention), site, batches)
    assert torch.equal(torch.get_rng_state(), before)
