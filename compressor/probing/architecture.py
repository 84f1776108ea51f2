"""What replaces what, as data.

An architecture is what a layer of a model is, without its weights and its width. A probe builds it narrow, between an
embedding and a linear readout that are the same on both sides, so that two networks differ in nothing else.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from compressor.errors import UsageError
from compressor.nn.converted.recurrent import TARGETS, ConvertedRecurrent
from compressor.nn.memory_cache import NO_CACHE
from compressor.nn.memory_cache import described as described_cache
from compressor.nn.recurrent.cells import CELLS
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.probing.layers import EncoderStack, OutputsOnly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from compressor.nn.converted.target import Target
    from compressor.nn.graphs.layered import LayeredGraph
    from compressor.nn.recurrent.graph_layout import CellWord, Skips
    from compressor.probing.layers import Mixer

_MIXERS: dict[str, str] = {"attention": "causal attention", "aaren": "Aaren"}
_CELLS: dict[str, str] = {mode.lower(): cell.gates.label for mode, cell in CELLS.items()}
WORDS: Final = (*_MIXERS, *_CELLS, *TARGETS)
"""Architectures that can be named without a model."""

MOST_LAYERS: Final = 2
"""Identical layers of a model that a probe stacks: what takes two layers, such as looking up a key, shows with two."""
_LEAST_HEAD_WIDTH: Final = 8
_USUAL_WIDTH: Final = 128
"""Of a layer that is named without a model; a probe scales it."""


@dataclass(frozen=True)
class Architecture(ABC):
    """What maps (B, T, W) to (B, T, W), at any width W, each output from the positions up to its own."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is."""

    @property
    @abstractmethod
    def size(self) -> str:
        """How much of it."""

    @property
    def has_positions(self) -> bool:
        """Whether positions are added to the embedding: to a recurrent layer, they are in the order already."""
        return False

    def scaled(self, width: int) -> Architecture:
        """The architecture as it is built at that width, cut down to what a probe can train."""
        return self

    @abstractmethod
    def build(self, width: int) -> nn.Module:
        """The layers with random weights, for what `scaled(width)` gave."""

    def facts(self) -> dict[str, Any]:
        """The architecture as JSON values, different for different ones."""
        return {"architecture": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Encoder(Architecture):
    """A causal Transformer encoder (norm first, feed-forward of twice the width, no dropout)."""

    mixers: tuple[Mixer, ...]
    """One a layer."""
    heads: int
    memory_cache: int = 0
    """Slots of each Aaren."""
    cache_segment: int = NO_CACHE["cache_segment"]
    """Positions of a slot."""

    @property
    def label(self) -> str:
        """`Aaren`, or `causal attention + Aaren` if layers differ."""
        names = [_MIXERS[mixer] for mixer in self.mixers]
        return names[0] if len(set(names)) == 1 else " + ".join(names)

    @property
    def size(self) -> str:
        """`2 layers, 4 heads`, or `2 layers, 4 heads, 8 slots of 16`."""
        sizes = f"{_counted(len(self.mixers), 'layer')}, {_counted(self.heads, 'head')}"
        return sizes + described_cache(self.cache)

    @property
    def cache(self) -> dict[str, int]:
        """Of each Aaren."""
        return {"memory_cache": self.memory_cache, "cache_segment": self.cache_segment}

    @property
    def has_positions(self) -> bool:
        """Attention knows no order of its own."""
        return True

    def scaled(self, width: int) -> Encoder:
        """With the largest number of heads, up to its own, that divides the width and leaves each 8 features.

        Raises:
            UsageError: The width is below 8.
        """
        if width < _LEAST_HEAD_WIDTH:
            raise UsageError(f"a width of {width} is too narrow for attention", hint=f"{_LEAST_HEAD_WIDTH} or more")
        most = min(self.heads, width // _LEAST_HEAD_WIDTH)
        heads = next(heads for heads in range(most, 0, -1) if width % heads == 0)
        return replace(self, heads=heads)

    def build(self, width: int) -> nn.Module:
        """PyTorch's encoder layers, their attention replaced if the layer has another mixer."""
        return EncoderStack(self.mixers, self.heads, width, cache=self.cache)


@dataclass(frozen=True)
class Recurrent(Architecture):
    """A stack of recurrent layers that runs forward."""

    cell: str
    """In small letters, as in `CELLS`."""
    layers: int = 1

    @property
    def label(self) -> str:
        """`GRU`."""
        return _CELLS[self.cell]

    @property
    def size(self) -> str:
        """`2 layers`."""
        return _counted(self.layers, "layer")

    def build(self, width: int) -> nn.Module:
        """A recurrent layer."""
        return OutputsOnly(CELLS[self.cell.upper()].layer(width, width, num_layers=self.layers, batch_first=True))


@dataclass(frozen=True)
class GraphStack(Architecture):
    """A sparse recurrent stack on a graph and its readout; see `compressor.nn.recurrent.graph`."""

    cell: CellWord
    graph: LayeredGraph
    units_per_node: int
    width: int
    """Hidden size of the layer that it replaces in the model; a probe scales the units by its own width over that."""
    skips: Skips = "inputs"
    repeated_rows: bool = False

    @property
    def label(self) -> str:
        """`GRU on a graph`."""
        return f"{_CELLS[self.cell]} on a graph"

    @property
    def size(self) -> str:
        """`12 nodes in 7 layers, 2 units each`."""
        layers, units = _counted(len(self.graph.layers), "layer"), _counted(self.units_per_node, "unit")
        return f"{self.graph.nodes} nodes in {layers}, {units} each"

    def scaled(self, width: int) -> GraphStack:
        """Units in proportion to the width, at least one a node."""
        units = max(1, round(self.units_per_node * width / self.width))
        return replace(self, units_per_node=units, width=width)

    def build(self, width: int) -> nn.Module:
        """The stack and its readout, as the model gets them."""
        stack = GraphRecurrent(
            self.cell,
            width,
            self.graph,
            self.units_per_node,
            batch_first=True,
            skips=self.skips,
            repeated_rows=self.repeated_rows,
        )
        return OutputsOnly(RecurrentStack(stack, width))


@dataclass(frozen=True)
class Converted(Architecture):
    """A stack of layers that `convert` makes; see `compressor.nn.converted`."""

    target: Target
    """The word after `to`."""
    structure: str
    """The record of a layer, as JSON."""
    layers: int = 1

    @classmethod
    def of(cls, target: Target, record: Mapping[str, Any], layers: int) -> Converted:
        """Layers of that record."""
        return cls(target, json.dumps(dict(record), sort_keys=True), layers)

    @property
    def label(self) -> str:
        """`FSMN`."""
        return TARGETS[self.target].label

    @property
    def size(self) -> str:
        """`2 layers, order 20, dilations 1`."""
        return f"{_counted(self.layers, 'layer')}, {TARGETS[self.target].described(json.loads(self.structure))}"

    def scaled(self, width: int) -> Converted:
        """All widths in proportion."""
        return Converted.of(
            self.target, TARGETS[self.target].in_proportion(json.loads(self.structure), width), self.layers
        )

    def build(self, width: int) -> nn.Module:
        """The layers, as the model gets them."""
        kind = TARGETS[self.target]
        fields = kind.in_proportion(json.loads(self.structure), width)
        layers = [kind.from_fields(fields) for _ in range(self.layers)]
        return OutputsOnly(
            ConvertedRecurrent(layers, batch_first=True, bidirectional=False, has_cell_state=False, dropout=0.0)
        )


@dataclass(frozen=True)
class Conversion:
    """What a step of a recipe replaces, and by what."""

    modules: tuple[str, ...]
    """The layers of the user's model that are converted; empty without a model."""
    original: Architecture
    converted: Architecture

    def scaled(self, width: int) -> Conversion:
        """Both sides as a probe builds them."""
        return replace(self, original=self.original.scaled(width), converted=self.converted.scaled(width))


def named(word: str, *, layers: int = MOST_LAYERS, heads: int = 4) -> Architecture:
    """The architecture that a word of `WORDS` stands for.

    Raises:
        UsageError: There is none.
    """
    if word in _CELLS:
        return Recurrent(word, layers)
    for target, kind in TARGETS.items():
        if word == target:
            return Converted.of(target, kind.usual(_USUAL_WIDTH), layers)
    if word in _MIXERS:
        return Encoder((word,) * layers, heads)  # type: ignore[arg-type]
    raise UsageError(f"unknown architecture `{word}`", hint=f"architectures: {', '.join(WORDS)}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
