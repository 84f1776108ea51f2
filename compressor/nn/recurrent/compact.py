"""What our own recurrent layers have in common: called as PyTorch's, with one part for each layer and direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator, Field
from torch import nn

from compressor.nn.factory import FactoryOptions
from compressor.nn.record import RecordedLayer
from compressor.nn.recurrent.cells import CELLS, Cell, RecurrentLayer

if TYPE_CHECKING:
    import torch

_MOST_LAYERS = 1024
T = TypeVar("T")


def _as_many_directions_everywhere(layers: list[list[T]]) -> list[list[T]]:
    if len({len(layer) for layer in layers}) > 1:
        raise ValueError("every layer has to have the same number of directions")
    return layers


PerPart = Annotated[
    list[Annotated[list[T], Field(min_length=1, max_length=2)]],
    Field(min_length=1, max_length=_MOST_LAYERS),
    AfterValidator(_as_many_directions_everywhere),
]
"""In a record: something for each layer and direction, layer by layer, the forward direction first."""


class CompactOptions(FactoryOptions, total=False):
    """Arguments that every `CompactRecurrent` is built from."""

    bias: bool
    """Each part has both biases, which is the default, or none."""
    batch_first: bool
    """Batches are (B, T, F) instead of (T, B, F), which is the default."""
    dropout: float
    """Probability, in training, of dropping an output of any layer but the last; 0 by default."""


class CompactRecurrent(RecordedLayer):
    """A recurrent layer of our own: `layers.0`, `layers.1`, and `reverse_layers.0` ... for the backward direction."""

    proj_size = 0
    """There are no projections."""
    input_size: int

    def __init__(self, mode: str, options: CompactOptions) -> None:
        """No layers yet.

        Args:
            mode: `RNN_TANH`, `RNN_RELU`, `GRU` or `LSTM`.
            options: Those that all of these layers have.
        """
        super().__init__()
        self.mode, self.bias = mode, options.get("bias", True)
        self.batch_first, self.dropout = options.get("batch_first", False), options.get("dropout", 0.0)
        self.layers = nn.ModuleList()
        self.reverse_layers = nn.ModuleList()

    @property
    def cell(self) -> Cell:
        """What every part computes at one step."""
        return CELLS[self.mode]

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def bidirectional(self) -> bool:
        """Whether there is a backward direction."""
        return len(self.reverse_layers) > 0

    def part(self, layer: int, direction: int) -> nn.Module:
        """What computes one layer in one direction; direction 1 runs backward in time."""
        return (self.layers, self.reverse_layers)[direction][layer]

    def flags(self) -> str:
        """The options as `extra_repr` shows them."""
        return f"bias={self.bias}, batch_first={self.batch_first}, dropout={self.dropout}"


def structure_options(module: RecurrentLayer | CompactRecurrent, like: torch.Tensor) -> CompactOptions:
    """The options of a layer that has those of another one, and weights on no device of the type of a given one."""
    options: CompactOptions = {"bias": module.bias, "batch_first": module.batch_first, "dropout": module.dropout}
    return {**options, "device": "meta", "dtype": like.dtype}


def is_batch(sequence: torch.Tensor) -> bool:
    """Whether a sequence is a batch (3 axes) or a single one (2).

    Raises:
        ValueError: It has another number of axes.
    """
    if sequence.dim() not in (2, 3):
        raise ValueError(f"the input has {sequence.dim()} axes; a sequence has 2, a batch of sequences 3")
    return sequence.dim() == 3
