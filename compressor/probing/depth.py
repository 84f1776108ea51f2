"""Layers of one kind one behind the other, some of which are one layer: what fewer, tied and looped layers are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from compressor.nn.recurrent.cells import CELLS
from compressor.probing.architecture import Architecture, Encoder, Recurrent
from compressor.probing.layers import EncoderStack, OutputsOnly, of_one_number
from compressor.surgery.depth.ties import share

if TYPE_CHECKING:
    from torch import nn

MOST_PLACES: Final = 4
"""Places of a stack that a probe trains; deeper ones are cut down in proportion."""


@dataclass(frozen=True)
class Depth(Architecture):
    """A stack in which layer i has the weights of number `places[i]`."""

    one: Encoder | Recurrent
    """One layer of it."""
    places: tuple[int, ...]
    own_vectors: bool = False
    """Layers of one number share their matrices only."""
    threshold: float | None = None
    """Runs of one number are a loop that ends at this relative change."""

    @property
    def label(self) -> str:
        """`tied GRU`, or `2-layer GRU`."""
        tied = len(set(self.places)) < len(self.places)
        word = "looped" if self.threshold is not None else "tied" if tied else f"{len(self.places)}-layer"
        return f"{word} {self.one.label}"

    @property
    def size(self) -> str:
        """`4 layers, 2 of them different`."""
        places, different = len(self.places), len(set(self.places))
        layers = "1 layer" if places == 1 else f"{places} layers"
        return layers if different == places else f"{layers}, {different} of them different"

    @property
    def has_positions(self) -> bool:
        """As its layers."""
        return self.one.has_positions

    def scaled(self, width: int) -> Depth:
        """With layers of that width; the places were cut down by `pair` already."""
        return replace(self, one=self.one.scaled(width) if isinstance(self.one, Encoder) else self.one)

    def build(self, width: int) -> nn.Module:
        """The layers, their weights shared."""
        if isinstance(self.one, Encoder):
            return EncoderStack(
                self.one.mixers * len(self.places),
                self.one.heads,
                width,
                cache=self.one.cache,
                places=self.places,
                own_vectors=self.own_vectors,
                threshold=self.threshold,
            )
        layer = CELLS[self.one.cell.upper()].layer(width, width, num_layers=len(self.places), batch_first=True)
        first = {name.removesuffix("_l0"): weight for name, weight in layer.named_parameters() if name.endswith("_l0")}
        roles = [role for role, weight in first.items() if weight.dim() > 1 or not self.own_vectors]
        share(layer, [[f"{role}_l{at}" for at in group] for group in of_one_number(self.places) for role in roles])
        return OutputsOnly(layer)


def pair(
    one: Encoder | Recurrent,
    before: tuple[int, ...],
    after: tuple[int, ...],
    *,
    own_vectors: bool,
    threshold: float | None,
) -> tuple[Depth, Depth]:
    """Both stacks as a probe trains them: at most four places, and in proportion what became of them."""
    if max(len(before), len(after)) > MOST_PLACES:
        part = MOST_PLACES / max(len(before), len(after))
        before, after = _spread(before, part), _fewer(_spread(after, part), before, after, part)
    return Depth(one, _numbered(before)), Depth(one, _numbered(after), own_vectors, threshold)


def _spread(places: tuple[int, ...], part: float) -> tuple[int, ...]:
    """About that part of the places, and of the different numbers among them."""
    count = max(1, round(part * len(places)))
    different = min(count, max(1, round(part * len(set(places)))))
    return tuple(place * different // count for place in range(count))


def _fewer(small: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], part: float) -> tuple[int, ...]:
    """What was fewer stays fewer, though both round to the same."""
    count, different = len(small), len(set(small))
    whole = _spread(before, part)
    if len(after) < len(before) and count == len(whole) > 1:
        count -= 1
    different = min(different, count)
    if len(set(after)) < len(set(before)) and different == len(set(whole)) > 1:
        different -= 1
    return tuple(place * different // count for place in range(count))


def _numbered(places: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers from 0 on, in the order in which they come."""
    numbers = {number: place for place, number in enumerate(dict.fromkeys(places))}
    return tuple(numbers[number] for number in places)
