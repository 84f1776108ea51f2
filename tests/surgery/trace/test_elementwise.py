"""Element-wise functions and moves: what keeps zeros, what makes something of them, and what fixes a size."""

import re

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from tests.surgery.trace.chains import WIDTH, Features, refusal, sequences, smaller


def _pairs(y):
    """(B, T, F) -> (B, F, T, T)."""
    return y.transpose(1, 2).unsqueeze(-1).expand(-1, -1, -1, y.size(1))


KEEPING = {
    "negation": lambda y: -y,
    "relu": torch.relu,
    "relu in place": lambda y: y.relu_(),
    "tanh": torch.tanh,
    "tanh in place": lambda y: y.tanh_(),
    "leaky_relu": lambda y: F.leaky_relu(y, 0.2),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "gelu": F.gelu,
    "silu": F.silu,
    "silu in place": lambda y: F.silu(y, inplace=True),
    "hardswish": F.hardswish,
    "mish": F.mish,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "hardshrink": lambda y: F.hardshrink(y, 0.1),
    "softshrink": lambda y: F.softshrink(y, 0.1),
    "rrelu": F.rrelu,
    "dropout that is off": lambda y: F.dropout(y, 0.5, training=False),
    "absolute value": torch.abs,
    "sine": torch.sin,
    "square": torch.square,
    "power": lambda y: y**2,
    "sign": torch.sign,
    "erf": torch.erf,
    "expm1": torch.expm1,
    "log1p of the absolute value": lambda y: torch.log1p(y.abs()),
    "asinh": torch.asinh,
    "sinh": lambda y: torch.sinh(y / 4),
    "atan": torch.atan,
    "round": lambda y: torch.round(4 * y),
    "floor": lambda y: torch.floor(4 * y),
    "ceil": lambda y: torch.ceil(4 * y),
    "trunc": lambda y: torch.trunc(4 * y),
    "square root": lambda y: torch.sqrt(y.relu()),
    "twice": lambda y: y * 2,
    "half": lambda y: y / 2,
    "times itself": lambda y: y * torch.sigmoid(y),
    "sum of both": lambda y: y + torch.tanh(y),
    "sum in place": lambda y: y.clone().add_(torch.tanh(y)),
    "difference": lambda y: y - torch.tanh(y),
    "difference in place": lambda y: y.clone().sub_(torch.tanh(y)),
    "larger one": lambda y: torch.maximum(y, -y / 2),
    "smaller one": lambda y: torch.minimum(y, -y / 2),
    "choice": lambda y: torch.where(y > 0, y, y / 3),
    "masked": lambda y: y.masked_fill(y > 1, 0.0),
    "masked in place": lambda y: y.clone().masked_fill_(y > 1, 0.0),
    "a step of each row": lambda y: y * torch.linspace(0.5, 1, y.size(1), dtype=y.dtype)[:, None],
    "another type": lambda y: y.float().double(),
}
MAKING_SOMETHING = {
    "sigmoid": torch.sigmoid,
    "sigmoid in place": lambda y: y.sigmoid_(),
    "exponential": torch.exp,
    "cosine": torch.cos,
    "softplus": F.softplus,
    "hardsigmoid": F.hardsigmoid,
    "logsigmoid": F.logsigmoid,
    "a number more": lambda y: y + 1,
    "a number less": lambda y: y - 0.5,
    "in place": lambda y: y.clone().add_(0.25),
    "from a number": lambda y: 1 - y,
    "at least": lambda y: y.clamp(min=0.1),
    "reciprocal": lambda y: 1 / (2 + y.abs()),
}
MOVED = {
    "copy": lambda y: y.clone(),
    "contiguous": lambda y: y.transpose(0, 1).contiguous().transpose(0, 1),
    "reversed steps": lambda y: y.flip(1),
    "rolled steps": lambda y: y.roll(2, 1),
    "repeated": lambda y: y.repeat(1, 2, 1),
    "stacked": lambda y: torch.stack([y, -y], 2),
    "chosen steps": lambda y: y[:, torch.tensor([0, 3, 3])],
    "chosen by index_select": lambda y: y.index_select(1, torch.tensor([4, 1])),
    "gathered": lambda y: y.gather(1, torch.zeros(y.size(0), 2, y.size(2), dtype=torch.int64)),
    "lower triangle of steps": lambda y: _pairs(y).tril().sum(-1).transpose(1, 2),
    "upper triangle of steps": lambda y: _pairs(y).triu().sum(-1).transpose(1, 2),
    "a step written": lambda y: y.index_put((torch.tensor([0]), torch.tensor([1])), y[:1, 2]),
    "a step written in place": lambda y: y.clone().index_put_((torch.tensor([0]), torch.tensor([1])), y[:1, 2]),
    "slice written": lambda y: y.slice_scatter(y[:, :2], 1, 4, 6),
    "step selected and written": lambda y: y.select_scatter(y[:, 2], 1, 0),
    "copied into": lambda y: torch.empty_like(y).copy_(y),
    "padded steps": lambda y: F.pad(y, (0, 0, 2, 1)),
    "reversed features, twice": lambda y: y.flip(-1).flip(2),
}


@pytest.mark.parametrize("name", KEEPING)
def test_a_function_that_keeps_zeros_needs_no_bias_behind_it(name):
    found = smaller(Features(KEEPING[name], bias=False), sequences())
    assert (found.first.out_features, found.head.in_features) == (WIDTH // 2, WIDTH // 2)


@pytest.mark.parametrize("name", MAKING_SOMETHING)
def test_what_a_function_makes_of_zeros_goes_into_the_bias_behind_it(name):
    found = smaller(Features(MAKING_SOMETHING[name]), sequences())
    assert found.head.in_features == WIDTH // 2


@pytest.mark.parametrize("name", MAKING_SOMETHING)
def test_without_a_bias_it_is_refused(name):
    why = refusal(Features(MAKING_SOMETHING[name], bias=False), sequences())
    assert re.search("bias", why)


@pytest.mark.parametrize("name", MOVED)
def test_features_are_followed_through_a_move(name):
    found = smaller(Features(MOVED[name], bias=False), sequences())
    assert (found.first.out_features, found.head.in_features) == (WIDTH // 2, WIDTH // 2)


def test_features_beside_each_other_are_each_followed():
    found = smaller(Features(lambda y: torch.cat([y, torch.tanh(y)], -1), bias=False), sequences())
    assert found.head.in_features == WIDTH


def test_halves_that_gate_each_other_go_together():
    for axis in (-1, 2):
        found = smaller(Features(lambda y, axis=axis: F.glu(y, axis), bias=False), sequences())
        assert (found.first.out_features, found.head.in_features) == (WIDTH // 2, WIDTH // 4)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda y: y + torch.linspace(0, 1, WIDTH, dtype=y.dtype), r"combined with a tensor of fixed size \(12,\)"),
        (lambda y: y * torch.linspace(0, 1, WIDTH, dtype=y.dtype), r"combined with a tensor of fixed size \(12,\)"),
        (lambda y: torch.fft.rfft(y).real, "is not followed"),
        (lambda y: y.sort(-1)[0], "compares it with others"),
        (lambda y: torch.softmax(y, -1), "normalises across it and others"),
        (lambda y: torch.log_softmax(y, 2), "normalises across it and others"),
    ],
)
def test_what_sees_all_features_at_once_keeps_them(function, reason):
    why = refusal(Features(function), sequences())
    assert re.search(reason, why)
