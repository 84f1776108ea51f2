"""Features that a view takes apart: equal parts of each block go, or whole blocks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

WIDTH, HEAD, INPUTS = 24, 4, 5


def by_rest(y):
    """The number of heads follows from the size: written as -1."""
    return y.view(*y.shape[:2], -1, HEAD)


def by_size(y):
    """The same, written with the size itself, as no -1 tells."""
    return y.view(*y.shape[:2], y.shape[2] // HEAD, HEAD)


def by_number(y):
    """The number of heads is fixed, the size of one follows."""
    return y.view(*y.shape[:2], WIDTH // HEAD, -1)


class Attention(nn.Module):
    """Attention by hand; keys and values may have fewer heads."""

    def __init__(self, heads, shared=1, *, fused=False):
        super().__init__()
        self.query, self.leave = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, 3)
        self.key, self.value = nn.Linear(INPUTS, WIDTH // shared), nn.Linear(INPUTS, WIDTH // shared)
        self.heads, self.shared, self.fused = heads, shared, fused

    def forward(self, x):
        q, k, v = (self.heads(layer(x)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        k, v = k.repeat_interleave(self.shared, 1), v.repeat_interleave(self.shared, 1)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) * 0.5, -1) @ v
        return self.leave(y.transpose(1, 2).flatten(2))


class Repeated(nn.Module):
    """One block of attention for every layer, as in ALBERT; heads are told by their size."""

    def __init__(self):
        super().__init__()
        self.enter, self.block, self.head = (
            nn.Linear(INPUTS, INPUTS),
            Attention(by_rest, fused=True),
            nn.Linear(INPUTS, 2),
        )
        self.block.leave = nn.Linear(WIDTH, INPUTS)

    def forward(self, x):
        y = self.enter(x)
        for _ in range(3):
            y = y + self.block(y)
        return self.head(y)


def halved(model, names=("query", "key", "value")):
    torch.manual_seed(0)
    model = model.double().eval()
    examples = [(torch.randn(2, 4, INPUTS).double(),), (torch.randn(3, 6, INPUTS).double(),)]
    return prune(model, {}, examples, names=names, amount=Amount(ratio=0.5), required=()).model


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("heads", [by_rest, by_size])
@pytest.mark.parametrize("shared", [1, 2])
def test_whole_heads_go_if_the_code_fixes_their_size(heads, shared, fused):
    smaller = halved(Attention(heads, shared, fused=fused))
    assert smaller.query.out_features == (16 if shared == 2 else 12)  # pairs of 6 heads: rounded up to two of three
    assert smaller.value.out_features == smaller.query.out_features // shared


def test_whole_heads_of_a_block_that_is_called_again_and_again_go_too():
    smaller = halved(Repeated(), ("block.query", "block.key", "block.value"))
    assert smaller.block.query.out_features == smaller.block.value.out_features == 12


def test_each_head_loses_features_if_the_code_fixes_their_number():
    smaller = halved(Attention(by_number))
    assert smaller.query.out_features == smaller.key.out_features == WIDTH // 2


def test_what_fails_is_told_beside_what_cannot_go():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(INPUTS, 8), nn.Linear(8, 3)

        def forward(self, x):
            y = self.first(x)
            return self.head(y.view(*x.shape[:2], 2, 4).transpose(-1, -2).reshape(*x.shape[:2], 8))

    with pytest.raises(SurgeryError, match="`first`: the smaller model cannot run") as error:
        halved(Fixed(), ("first", "head"))
    assert "`head`: it is part of the model's output" in error.value.message
    assert "fixed in the model's code" in error.value.hint
