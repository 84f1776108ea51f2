"""Recurrent layers in front of a Linear layer: cells, depths, directions, orders of axes and projections, 48 in all.

The grid that TinyNeuralNetwork's tests of its pruner go through, written anew at another size.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from torch import Tensor, nn

from benchmarks.kinds.kind import Kind, features

INPUTS, HIDDEN, CLASSES = 7, 24, 5


class Tagger(nn.Module):
    """A recurrent layer and what reads it at each step."""

    def __init__(self, cell: type[nn.RNNBase], **options: Any) -> None:
        """Of a kind of cell and its options."""
        super().__init__()
        self.rnn = cell(INPUTS, HIDDEN, **options)
        width = (self.rnn.proj_size or HIDDEN) * (1 + self.rnn.bidirectional)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, I) or (T, B, I) to a result for each step."""
        return self.head(self.rnn(x)[0])


def _kind(cell: type[nn.RNNBase], layers: int, both: bool, **options: Any) -> Kind:
    words = [cell.__name__, f"{layers} layers", *(["bidirectional"] if both else [])]
    words += [f"{name}={value}" for name, value in options.items()]
    options |= {"num_layers": layers, "bidirectional": both}
    return Kind(", ".join(words), lambda: Tagger(cell, **options), features(INPUTS))


def _options(cell: type[nn.RNNBase], projection: int) -> list[dict[str, int]]:
    return [{}, {"proj_size": projection}] if cell is nn.LSTM else [{}]


_EVERY = [*product((nn.RNN, nn.GRU, nn.LSTM), (1, 2), (False, True))]
KINDS = [
    *(
        _kind(cell, layers, both, batch_first=first, **options)
        for cell, layers, both in _EVERY
        for first in (False, True)
        for options in _options(cell, 20)
    ),
    *(
        _kind(cell, layers, both, bias=bool(options), **options)
        for cell, layers, both in _EVERY
        for options in _options(cell, 12)
    ),
]
