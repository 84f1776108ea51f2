"""The layers that a probe builds an architecture of."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.halting import HaltingLayer
from compressor.nn.memory_cache import NO_CACHE
from compressor.surgery.depth.ties import share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Mixer = Literal["attention", "aaren"]
"""What mixes positions in a layer of a Transformer encoder."""


class EncoderStack(nn.Module):
    """PyTorch's encoder layers with a causal mask, some of them with another mixer than attention."""

    def __init__(
        self,
        mixers: tuple[Mixer, ...],
        heads: int,
        width: int,
        *,
        places: tuple[int, ...] = (),
        own_vectors: bool = False,
        threshold: float | None = None,
        cache: Mapping[str, int] = NO_CACHE,
    ) -> None:
        """With random weights; norm first, feed-forward of twice the width, no dropout.

        Args:
            mixers: Of each layer.
            heads: Of attention.
            width: Of all layers.
            places: A number for each layer; those of one number share their weights. All differ if left out.
            own_vectors: They share matrices only.
            threshold: Neighbours of one number are a loop that ends at this relative change.
            cache: Memory cache of `aaren`, as the fields of a `CacheRecord`.
        """
        super().__init__()
        self.blocks = nn.ModuleList()
        for mixer in mixers:
            block = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            if mixer == "aaren":
                block.self_attn = _aaren(block.self_attn, cache)  # type: ignore[assignment]
            self.blocks.append(block)
        if len(set(places)) < len(places):
            share(self.blocks, _tied(self.blocks, places, 2 if own_vectors else 1))
        if threshold is not None:
            self.blocks = nn.ModuleList(_looped(self.blocks, places, threshold))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])  # (T, T)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        normed: Tensor = self.norm(x)
        return normed


class OutputsOnly(nn.Module):
    """A recurrent layer without its states."""

    def __init__(self, layer: nn.Module) -> None:
        """Around a layer."""
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The sequence of its outputs."""
        outputs: Tensor = self.layer(x)[0]
        return outputs


def of_one_number(places: tuple[int, ...]) -> list[list[int]]:
    """Where each number stands that stands at several places."""
    groups = [[at for at, own in enumerate(places) if own == number] for number in dict.fromkeys(places)]
    return [group for group in groups if len(group) > 1]


def _tied(blocks: nn.ModuleList, places: tuple[int, ...], least_axes: int) -> list[list[str]]:
    """The names of each weight that blocks of one number share."""
    roles = [name for name, weight in blocks[0].named_parameters() if weight.dim() >= least_axes]
    return [[f"{at}.{role}" for at in group] for group in of_one_number(places) for role in roles]


def _looped(blocks: nn.ModuleList, places: tuple[int, ...], threshold: float) -> Iterator[nn.Module]:
    """The first block of each run of one number, in a loop."""
    at = 0
    for _, run in groupby(places):
        steps = len(list(run))
        yield blocks[at] if steps == 1 else HaltingLayer(blocks[at], steps, threshold, 0)
        at += steps


def _aaren(attention: nn.MultiheadAttention, cache: Mapping[str, int]) -> AarenAttention:
    """An Aaren with the initial weights of an attention, and a random query."""
    aaren = AarenAttention.from_attention(attention, **cache)
    if aaren.cache is not None:
        aaren.cache.reset()
    nn.init.normal_(aaren.query)
    return aaren
