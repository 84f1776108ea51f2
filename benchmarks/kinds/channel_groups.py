"""What TinyNeuralNetwork's tests of its pruner are about beside recurrent layers, written anew: 39 models.

Concatenations and sums of branches, groups of different numbers, splits, views that take an axis apart, attention by
hand, layers over an axis that is not the last one.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.kinds.kind import Kind, features, image
from benchmarks.kinds.recurrent_grid import CLASSES, INPUTS
from benchmarks.kinds.wired import wired

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURE = image(9)
HEADS = 16
"""Features of one head of the attentions, written into their code as a number."""


def _row(size: int) -> Any:
    return lambda batch, length: (torch.randn(batch, size),)


def _conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **options)


def _same(inputs: int, outputs: int) -> nn.Conv2d:
    return _conv(inputs, outputs, padding=1)


def _elementwise(name: str, operation: Callable[[Tensor, Tensor], Tensor]) -> Kind:
    return wired(
        f"groups of 8 and none, {name}, groups of 4", image(6, 16),
        lambda m, x: m.after(operation(m.grouped(x), m.plain(x))),
        lambda: {"grouped": _conv(16, 16, 1, groups=8), "plain": _conv(16, 16, 1),
                 "after": _conv(16, 16, 1, groups=4)},
    )  # fmt: skip


def _stereo(batch: int, length: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 1, 33, 8),)


def _recurrent(m: Any, x: Tensor) -> Tensor:
    frames = x.permute(3, 0, 1, 2)  # (T, B, 1, F)
    flat = m.norm(m.enter(frames.reshape(-1, 33)))
    return m.lstm(flat.reshape(x.shape[3], x.shape[0], 24))[0]


def _split_sums(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    wide = m.wide(x)
    first, second = torch.split(wide, wide.shape[1] // 2, 1)
    return m.left(m.a(x) + first), m.right(second + m.b(x))


def _res2net(m: Any, x: Tensor) -> Tensor:
    y = m.enter(x)
    a, b, c, d = torch.split(y, y.shape[1] // 4, 1)
    a = m.first(a)
    b = m.second(a + b)
    c = m.third(b + c)
    return m.leave(torch.cat([a, b, c, d], 1))


def _shuffle(how: str) -> Callable[..., Tensor]:
    def wiring(m: Any, x: Tensor) -> Tensor:
        y = m.first(x)
        batch, channels, height, width = y.shape
        if how == "fixed":
            return m.second(y.view(batch, 2, 8, height, width).transpose(1, 2).reshape(batch, -1, height, width))
        y = y.reshape([batch, 2, channels // 2, height, width]).transpose(1, 2).contiguous()
        return m.second(y.view(batch, -1, height, width))

    return wiring


def _halves(m: Any, x: Tensor) -> Tensor:
    left, right = m.enter(x).chunk(2, dim=1)
    return m.leave(torch.cat([left, m.third(m.second(m.first(right)))], 1))


def _apart(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    left, right = torch.split(torch.cat([m.a(x), m.b(x)], 1), 8, 1)
    return m.left(left), m.right(right)


def _three(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.relu(m.enter(x))
    a, b, c = m.a(y), m.b(y), m.c(y)
    return m.left(torch.cat([a, b], 1)), m.right(torch.cat([b, c], 1))


def _regrouped(m: Any, x: Tensor) -> Tensor:
    y = m.enter(x)
    return m.leave(torch.cat([m.twos(y) + m.fours(y), m.eights(m.other(x))], 1))


def _split_heads(x: Tensor) -> Tensor:
    return torch.reshape(x, [x.shape[0], x.shape[1], x.shape[2] // HEADS, HEADS]).permute(0, 2, 1, 3)


def _scores(m: Any, x: Tensor) -> Tensor:
    return torch.matmul(_split_heads(m.query(x)), _split_heads(m.key(x)).transpose(-1, -2))


def _attention(m: Any, x: Tensor) -> Tensor:
    mixed = torch.matmul(torch.softmax(_scores(m, x), dim=-1), _split_heads(m.value(x))).permute(0, 2, 1, 3)
    return x + m.leave(mixed.reshape([mixed.shape[0], mixed.shape[1], mixed.shape[2] * mixed.shape[3]]))


def _patches(m: Any, x: Tensor) -> Tensor:
    y = m.patches(x).flatten(2).transpose(-1, -2)
    return torch.cat((torch.ones(y.shape[0], 1, y.shape[-1]), y), dim=1)


def _four_times(m: Any, x: Tensor) -> Tensor:
    y = m.first(x)
    return m.second(torch.cat([m.a(y), m.b(y), m.c(y), m.d(y)], dim=1))


def _both_groups(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.first(x)
    return m.fours(y), m.eights(y)


def _halves_added(m: Any, x: Tensor) -> Tensor:
    left, right = torch.chunk(m.enter(x), 2, 1)
    return m.leave(m.grouped(left) + right)


def _inverted(m: Any, x: Tensor) -> Tensor:
    y = m.enter(x)
    return y + m.norm(m.narrow(m.depthwise(m.wide(y))))


def _three_times(m: Any, x: Tensor) -> Tensor:
    y = m.first(x)
    return m.second(y + y + y)


def _unequal(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    two, six = torch.split(m.enter(x), (2, 6), dim=2)
    return m.two(two), m.six(six)


def _listed(m: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    y = m.enter(x)
    return m.a(y), [m.b(y), m.c(y)]


def _projections(*names: str) -> dict[str, nn.Module]:
    return {name: nn.Linear(32, 32) for name in names}


def _constant_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3)
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)
    return norm


class Added(nn.Module):
    """An LSTM with a projection, to which a Linear layer of the input is added."""

    def __init__(self, layers: int, *, both: bool) -> None:
        """Of a depth, in one or both directions."""
        super().__init__()
        self.rnn = nn.LSTM(INPUTS, 24, num_layers=layers, bidirectional=both, proj_size=20)
        self.beside, self.head = nn.Linear(INPUTS, 20 * (1 + both)), nn.Linear(20 * (1 + both), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, I) to a result for each step."""
        return self.head(self.beside(x) + self.rnn(x)[0])


KINDS = [
    wired("pixel shuffle", PICTURE, lambda m, x: m.second(m.shuffle(m.first(x))),
          lambda: {"first": _same(3, 16), "shuffle": nn.PixelShuffle(2), "second": _same(4, 4)}),
    wired("branches side by side, flattened", PICTURE,
          lambda m, x: m.head(m.mix(torch.cat([m.a(x), m.b(x)], dim=1)).view(x.shape[0], -1)),
          lambda: {"a": _conv(3, 8), "b": _conv(3, 8), "mix": _conv(16, 12), "head": nn.Linear(12 * 25, 10)}),
    wired("branches side by side and a sum, padded", PICTURE,
          lambda m, x: m.head(F.pad(torch.cat([m.a(x), m.b(x)], 1) + m.c(x), (1, 1, 1, 1))),
          lambda: {"a": _same(3, 8), "b": _same(3, 8), "c": _same(3, 16), "head": _conv(16, 12)}),
    wired("branches side by side and a sum", PICTURE, lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], 1) + m.c(x)),
          lambda: {"a": _same(3, 8), "b": _same(3, 8), "c": _same(3, 16), "head": _conv(16, 12)}),
    wired("flattened", PICTURE, lambda m, x: m.head(m.hidden(m.drop(torch.flatten(m.second(m.first(x)), 1)))),
          lambda: {"first": _conv(3, 8), "second": _conv(8, 12), "drop": nn.Dropout(),
                   "hidden": nn.Linear(12 * 25, 20), "head": nn.Linear(20, 10)}),
    wired("four times the same, in place", PICTURE, _four_times,
          lambda: {"first": _conv(3, 16), "second": _conv(64, 32),
                   **{name: nn.ReLU(inplace=True) for name in "abcd"}}),
    wired("unequal branches in front of groups", PICTURE, lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], 1)),
          lambda: {"a": _conv(3, 16), "b": _conv(3, 32), "head": _conv(48, 64, groups=4)}),
    wired("groups", PICTURE, lambda m, x: m.third(m.second(m.first(x))),
          lambda: {"first": _conv(3, 16), "second": _conv(16, 32, groups=8), "third": _conv(32, 32)}),
    wired("4 and 8 groups on one layer", PICTURE, _both_groups,
          lambda: {"first": _conv(3, 16), "fours": _conv(16, 32, groups=4), "eights": _conv(16, 32, groups=8)}),
    wired("sums of other groups side by side", PICTURE, _regrouped,
          lambda: {"enter": _conv(3, 16), "twos": _conv(16, 32, groups=2), "fours": _conv(16, 32, groups=4),
                   "other": _conv(3, 16), "eights": _conv(16, 32, groups=8), "leave": _conv(64, 64)}),
    wired("branches in two pairs", PICTURE, _three,
          lambda: {"enter": _conv(3, 8), "a": _conv(8, 16), "b": _conv(8, 16, groups=4), "c": _conv(8, 16),
                   "left": _conv(32, 24), "right": _conv(32, 24)}),
    wired("split, and sums in front of groups", PICTURE, _split_sums,
          lambda: {"wide": _conv(3, 32), "a": _conv(3, 16), "b": _conv(3, 16), "left": _conv(16, 32, groups=2),
                   "right": _conv(16, 32, groups=4)}),
    _elementwise("sum", operator.add),
    wired("split, groups, a sum", PICTURE,
          _halves_added,
          lambda: {"enter": _conv(3, 32, 1), "grouped": _conv(16, 16, 1, groups=8),
                   "leave": _conv(16, 16, 1, groups=2)}),
    wired("inverted residual", PICTURE,
          _inverted,
          lambda: {"enter": _conv(3, 8, 1), "wide": _conv(8, 16, 1), "depthwise": _conv(16, 16, padding=1, groups=16),
                   "narrow": _conv(16, 8, 1), "norm": nn.BatchNorm2d(8)}),
    wired("Res2Net with groups", PICTURE, _res2net,
          lambda: {"enter": _conv(3, 64, 1), "first": _conv(16, 16, 1, groups=8), "second": _conv(16, 16, 1, groups=2),
                   "third": _conv(16, 16, 1), "leave": _conv(64, 64, 1)}),
    wired("three times its own sum", PICTURE, _three_times,
          lambda: {"first": _conv(3, 16), "second": _conv(16, 32)}),
    wired("channel shuffle by a number in the code", PICTURE, _shuffle("fixed"),
          lambda: {"first": _conv(3, 16), "second": _conv(16, 32)}),
    wired("channel shuffle by the size", PICTURE, _shuffle("size"),
          lambda: {"first": _conv(3, 16), "second": _conv(16, 32)}),
    wired("Linear layers on three axes", features(8), lambda m, x: m.second(m.first(x)),
          lambda: {"first": nn.Linear(8, 32), "second": nn.Linear(32, 32)}),
    wired("spectrogram, Linear, LSTM of three layers", _stereo, _recurrent,
          lambda: {"enter": nn.Linear(33, 24, bias=False), "norm": nn.BatchNorm1d(24),
                   "lstm": nn.LSTM(24, 16, num_layers=3, dropout=0.4)}),
    *(Kind(f"projected LSTM and a sum, {layers} layers{', bidirectional' if both else ''}",
           lambda layers=layers, both=both: Added(layers, both=both), features(INPUTS))
      for layers in (1, 2) for both in (False, True)),
    wired("side by side, split again by a number in the code", PICTURE, _apart,
          lambda: {"a": _conv(3, 8), "b": _conv(3, 8), "left": _conv(8, 32, groups=2),
                   "right": _conv(8, 32, groups=4)}),
    wired("split of unequal parts by numbers in the code", features(8),
          _unequal,
          lambda: {"enter": nn.Linear(8, 8), "two": nn.Linear(2, 32), "six": nn.Linear(6, 32)}),
    wired("Linear layers side by side", _row(8), lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], dim=1)),
          lambda: {"a": nn.Linear(8, 16), "b": nn.Linear(8, 16), "head": nn.Linear(32, 32)}),
    wired("side by side along the batch", _row(8), lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], dim=0)),
          lambda: {"a": nn.Linear(8, 16), "b": nn.Linear(8, 16), "head": nn.Linear(16, 32)}),
    wired("side by side along the batch, in front of groups", PICTURE,
          lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], dim=0)),
          lambda: {"a": _conv(3, 16, 1), "b": _conv(3, 16, 1), "head": _conv(16, 32, 1, groups=4)}),
    wired("split into heads of a number in the code", features(32), lambda m, x: m.head(_split_heads(m.enter(x))),
          lambda: {"enter": nn.Linear(32, 32), "head": nn.Linear(HEADS, HEADS)}),
    wired("scores of an attention by hand", image(16), lambda m, x: m.head(_scores(m, _patches(m, x))),
          lambda: {"patches": _conv(3, 32, 4, stride=4), "head": nn.Linear(17, 17), **_projections("query", "key")}),
    wired("an attention by hand", features(32), _attention, lambda: _projections("query", "key", "value", "leave")),
    wired("patches and an attention by hand", image(16), lambda m, x: _attention(m, _patches(m, x)),
          lambda: {"patches": _conv(3, 32, 4, stride=4), **_projections("query", "key", "value", "leave")}),
    wired("halves as an axis of its own", _row(16),
          lambda m, x: m.head(m.enter(x).reshape(x.shape[0], 2, 16).transpose(1, 2)),
          lambda: {"enter": nn.Linear(16, 32), "head": nn.Linear(2, 64)}),
    wired("ShuffleNet's halves", image(6), _halves,
          lambda: {"enter": _conv(3, 16, 1), "first": _conv(8, 8, 1), "second": _conv(8, 8, 1, groups=8),
                   "third": _conv(8, 8, 1), "leave": _conv(16, 32, 1)}),
    wired("PReLU", PICTURE, lambda m, x: m.second(m.slope(m.first(x))),
          lambda: {"first": _conv(3, 16, 1), "slope": nn.PReLU(16), "second": _conv(16, 32, 1)}),
    wired("a normalisation that gives a constant", PICTURE, lambda m, x: m.second(m.first(m.norm(x))),
          lambda: {"norm": _constant_norm(), "first": _conv(3, 6, 1), "second": _conv(6, 4, 1)}),
    wired("outputs in a list", _row(8), _listed,
          lambda: {"enter": nn.Linear(8, 8), "a": nn.Linear(8, 16), "b": nn.Linear(8, 32), "c": nn.Linear(8, 64)}),
]  # fmt: skip
