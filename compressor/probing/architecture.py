"""What takes the place of what, as data, and a small network around it.

An architecture is what a layer of a model is, without its weights and its width. A probe builds it narrow, between an
embedding and a linear readout that are the same on both sides, so that two networks differ in nothing else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.recurrent.cells import CELLS
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.stack import RecurrentStack

if TYPE_CHECKING:
    from compressor.nn.graphs.layered import LayeredGraph
    from compressor.nn.recurrent.graph_layout import CellWord, Skips

Mixer = Literal["attention", "aaren"]
"""What mixes positions in a layer of a Transformer encoder."""

_MIXERS: dict[str, str] = {"attention": "causal attention", "aaren": "Aaren"}
_CELLS: dict[str, str] = {"rnn_tanh": "tanh RNN", "rnn_relu": "ReLU RNN", "gru": "GRU", "lstm": "LSTM"}
WORDS: Final = (*_MIXERS, *_CELLS)
"""Architectures that can be named without a model."""

MOST_LAYERS: Final = 2
"""Layers alike of a model that a probe stacks: what takes two layers, such as looking up a key, shows with two."""
_LEAST_HEAD_WIDTH: Final = 8
_LONGEST_WAVE: Final = 100.0
"""Of the position encoding, over 2 pi: sequences of a probe are some ten to a hundred positions long."""


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

    @property
    def label(self) -> str:
        """`Aaren`, or `causal attention + Aaren` where layers differ."""
        names = [_MIXERS[mixer] for mixer in self.mixers]
        return names[0] if len(set(names)) == 1 else " + ".join(names)

    @property
    def size(self) -> str:
        """`2 layers, 4 heads`."""
        return f"{_counted(len(self.mixers), 'layer')}, {_counted(self.heads, 'head')}"

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
        """PyTorch's encoder layers, their attention replaced where the layer has another mixer."""
        return _EncoderStack(self.mixers, self.heads, width)


@dataclass(frozen=True)
class Recurrent(Architecture):
    """A stack of PyTorch's recurrent layers that runs forward."""

    cell: CellWord
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
        """PyTorch's recurrent layer."""
        return _Outputs(CELLS[self.cell.upper()].layer(width, width, num_layers=self.layers, batch_first=True))


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
        return _Outputs(RecurrentStack(stack, width))


@dataclass(frozen=True)
class Conversion:
    """What a step of a recipe puts in the place of what."""

    modules: tuple[str, ...]
    """The layers of the user's model that are converted; empty where there is no model."""
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
        return Recurrent(word, layers)  # type: ignore[arg-type]
    if word in _MIXERS:
        return Encoder((word,) * layers, heads)  # type: ignore[arg-type]
    raise UsageError(f"there is no architecture `{word}`", hint=f"architectures: {', '.join(WORDS)}")


class Network(nn.Module):
    """Embedding (and positions) -> an architecture -> linear readout: tokens (B, T) to scores (B, T, classes)."""

    def __init__(self, architecture: Architecture, width: int, tokens: int, classes: int) -> None:
        """With random weights from PyTorch's global generator; the architecture is one that `scaled(width)` gave."""
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.has_positions = architecture.has_positions
        self.layers = architecture.build(width)
        self.readout = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the classes at every position."""
        x = self.embedding(tokens)  # (B, T, W)
        if self.has_positions:
            x = x + sinusoids(x.shape[1], x.shape[2])
        scores: Tensor = self.readout(self.layers(x))  # (B, T, classes)
        return scores


def sinusoids(length: int, width: int) -> Tensor:
    """Positions (T, W): sines, then cosines, of t * 100^(-2i / W) for i < W / 2 (Vaswani et al. 2017, section 3.5).

    The longest wave there has 10,000 in the place of 100.
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(_LONGEST_WAVE) / width))  # (ceil(W / 2),)
    angles = torch.arange(length)[:, None] * rates  # (T, ceil(W / 2))
    return torch.cat((angles.sin(), angles.cos()), 1)[:, :width]


class _EncoderStack(nn.Module):
    def __init__(self, mixers: tuple[Mixer, ...], heads: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for mixer in mixers:
            block = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            if mixer == "aaren":
                block.self_attn = _aaren(block.self_attn)  # type: ignore[assignment]
            self.blocks.append(block)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])  # (T, T)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        normed: Tensor = self.norm(x)
        return normed


class _Outputs(nn.Module):
    """A recurrent layer without its states."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x)[0]
        return outputs


def _aaren(attention: nn.MultiheadAttention) -> AarenAttention:
    """An Aaren with the initial weights of an attention, and a random query."""
    aaren = AarenAttention.from_attention(attention)
    nn.init.normal_(aaren.query)
    return aaren


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
