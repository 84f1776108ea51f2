"""What may go from each layer, and how much of it is asked for; `choosing` decides."""

from __future__ import annotations

import fractions
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.nn.names import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.report import Skip
    from compressor.surgery.trace.atoms import Ids

Scores = NDArray[np.float64]
"""Score of a group at the index of its representative; larger = keep."""


@dataclass(frozen=True)
class Layer:
    """What one layer (and direction) produces: hidden units, channels or features."""

    module: str
    groups: Ids
    """The group of each unit, by its representative."""
    layer: int | None = None
    """Layer of a recurrent module; None for a Linear or convolution."""
    direction: int = 0
    unit: str = "unit"
    """What errors call one of them."""
    optional: bool = False
    """That it cannot shrink is no error even if its module was asked for by name."""

    @property
    def label(self) -> str:
        """How errors name it."""
        if self.layer is None:
            return in_words(self.module)
        backwards = ", backwards" if self.direction else ""
        return f"layer {self.layer}{backwards} of `{self.module}`"

    @property
    def together(self) -> int:
        """How many of its units only go together: 1, or 2 where half of the channels gate the others (GLU).

        If that differs from group to group, the number that divides all of them.
        """
        return math.gcd(*self.sizes().values())

    def sizes(self) -> dict[int, int]:
        """Group -> how many units of this layer are in it."""
        groups, counts = np.unique(self.groups, return_counts=True)
        return dict(zip(groups.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class Amount:
    """How much goes: `ratio`, `count`, all but `keep`, or what scores `below`; kept units rounded up to `round_to`.

    With scope `layer` that holds for each layer. With scope `global` the ratio holds for all layers together, their
    scores being `compared` first, since magnitudes differ between layers by kind. `ratios` gives modules a ratio of
    their own and goes with scope `layer`.
    """

    ratio: float | None = None
    count: int | None = None
    round_to: int = 1
    scope: Literal["layer", "global"] = "layer"
    compared: Literal["mean", "lamp"] = "mean"
    """How scores of different layers are, with scope `global`: divided by their layer's `mean`, or as `lamp`."""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """Module name -> the ratio of its layers, instead of `ratio` or `count`."""
    keep: int | None = None
    """Instead of `ratio` or `count`: how many stay."""
    below: float | None = None
    """Instead of `ratio` or `count`: every group with a lower score goes; a layer without one is left alone."""

    def of(self, module: str) -> Amount:
        """The amount for one module."""
        if module not in self.ratios:
            return self
        return replace(self, ratio=self.ratios[module], count=None, keep=None, ratios={})

    def renamed(self, names: Mapping[str, Sequence[str]]) -> Amount:
        """The same amount after modules were replaced by several, each of which takes over the ratio."""
        ratios = {new: ratio for name, ratio in self.ratios.items() for new in names.get(name, (name,))}
        return replace(self, ratios=ratios)

    def removed_of(self, size: int) -> int:
        """How many of `size` go before rounding, rounded down."""
        if self.count is not None:
            return self.count
        if self.keep is not None:
            return size - self.keep
        # 0.29 * 100 is 28.999... in binary; the decimal number that was written is what counts.
        return math.floor(size * fractions.Fraction(repr(self.ratio)))

    def rounded(self, kept: int, size: int, together: int = 1) -> int:
        """Kept units rounded up to a multiple of `round_to` and of those that only go together, at most `size`."""
        step = math.lcm(self.round_to, together)
        return min(size, math.ceil(kept / step) * step)


@dataclass(frozen=True)
class Choice:
    """The groups to remove, and the layers that were left alone."""

    removed: Ids
    skipped: tuple[Skip, ...]
