"""Which groups go: so many from each layer, or the lowest of all layers together."""

from __future__ import annotations

import fractions
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.errors import SurgeryError
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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

    @property
    def label(self) -> str:
        """How errors name it."""
        if self.layer is None:
            return f"`{self.module}`" if self.module else "the model itself"
        backwards = ", backwards" if self.direction else ""
        return f"layer {self.layer}{backwards} of `{self.module}`"

    @property
    def together(self) -> int:
        """How many of its units only go together: 1, or 2 where half of the channels gate the others (GLU).

        0 if that differs from group to group, so that single ones cannot be removed.
        """
        sizes = np.unique(np.unique(self.groups, return_counts=True)[1])
        return int(sizes[0]) if len(sizes) == 1 else 0


@dataclass(frozen=True)
class Amount:
    """How much goes: `ratio`, `count`, all but `keep`, or what scores `below`; kept units rounded up to `round_to`.

    With scope `layer` that holds for each layer. With scope `global` the ratio holds for all layers together, their
    scores divided by their layer's mean first, since magnitudes differ between layers by kind. `ratios` gives modules
    a ratio of their own and goes with scope `layer`.
    """

    ratio: float | None = None
    count: int | None = None
    round_to: int = 1
    scope: Literal["layer", "global"] = "layer"
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


def choose(
    layers: Sequence[Layer],
    scores: Scores,
    pinned: Mapping[int, str],
    amount: Amount,
    required: frozenset[str],
) -> Choice:
    """Choose the groups with the lowest scores; ties go to the lower index, tied layers are decided together.

    Args:
        layers: The candidates, in the model's order.
        scores: See `Scores`.
        pinned: Groups that stay, with the reason.
        amount: How much goes.
        required: Modules that were asked for by name: if one of them cannot shrink, that is an error and no skip.

    Raises:
        SurgeryError: Nothing or everything would go, or a required layer cannot shrink.
    """
    usable, skipped = _usable(layers, pinned, required)
    removed = _globally(usable, scores, pinned, amount) if amount.scope == "global" else {}
    if amount.scope == "layer":
        for layer in usable:
            removed |= _from_layer(layer, scores, pinned, amount, removed)
        _check_ties(usable, scores, amount, removed)
    if not removed:
        raise SurgeryError("no unit would go: none scores low enough", hint="ask for a `ratio`")
    return Choice(np.array(sorted(removed), np.int64), skipped)


def _usable(
    layers: Sequence[Layer], pinned: Mapping[int, str], required: frozenset[str]
) -> tuple[list[Layer], tuple[Skip, ...]]:
    usable, skipped = [], []
    for layer in layers:
        reason = _why_not(layer, pinned)
        if reason is None:
            usable.append(layer)
        elif layer.module in required:
            raise SurgeryError(
                f"{layer.unit}s of {layer.label} cannot be removed: {reason}",
                hint=f"name `{layer.module}` under `ignore`; the model is untouched",
            )
        else:
            skipped.append(Skip(name=layer.module, reason=reason))
    if not usable:
        reasons = "; ".join(f"`{skip.name}`: {skip.reason}" for skip in skipped)
        raise SurgeryError(f"nothing can be removed ({reasons})", hint="choose other layers with `targets`")
    return usable, tuple(skipped)


def _why_not(layer: Layer, pinned: Mapping[int, str]) -> str | None:
    groups = layer.groups.tolist()
    if not layer.together:
        return "its units depend on each other, so single ones cannot be removed"
    if len(set(groups)) == 1 < len(groups):
        return "all its units depend on each other, so single ones cannot be removed"
    if all(group in pinned for group in groups):
        return "; ".join(sorted({pinned[group] for group in groups}))
    return None


def _from_layer(
    layer: Layer, scores: Scores, pinned: Mapping[int, str], amount: Amount, before: Mapping[int, None]
) -> dict[int, None]:
    groups = layer.groups.tolist()
    number = _number(layer, scores, amount)
    tied = sum(group in before for group in groups)
    free = [group for group in dict.fromkeys(groups) if group not in before and group not in pinned]
    possible = tied + len(free) * layer.together
    if possible < number:
        reasons = "; ".join(sorted({pinned[group] for group in groups if group in pinned}))
        raise SurgeryError(
            f"{number} of the {len(groups)} {layer.unit}s of {layer.label} should go, only {possible} can: {reasons}",
            hint="lower `ratio` or `count`",
        )
    order = sorted(range(len(free)), key=lambda index: float(scores[free[index]]))
    return dict.fromkeys(free[index] for index in order[: max(0, number - tied) // layer.together])


def _number(layer: Layer, scores: Scores, amount: Amount) -> int:
    size = len(layer.groups)
    amount = amount.of(layer.module)
    if amount.below is not None:
        lowest = size - int((scores[layer.groups] < amount.below).sum())
        return size - amount.rounded(max(lowest, 1), size, layer.together)
    kept = size - amount.removed_of(size)
    if kept <= 0:
        raise SurgeryError(
            f"this would leave no {layer.unit} in {layer.label}, which has {size}", hint="lower `ratio` or `count`"
        )
    step = math.lcm(amount.round_to, layer.together)
    kept = amount.rounded(kept, size, layer.together)
    if kept == size:
        multiple = f" (kept units are rounded up to a multiple of {step})" if step > 1 else ""
        raise SurgeryError(
            f"no {layer.unit} would go from {layer.label}, which has {size}{multiple}",
            hint="raise `ratio` or `count`, or lower `round_to`",
        )
    return size - kept


def _check_ties(layers: Sequence[Layer], scores: Scores, amount: Amount, removed: Mapping[int, None]) -> None:
    """Tied layers share groups: what one chose another loses too, and the numbers have to come out for both."""
    for layer in layers:
        lost = sum(group in removed for group in layer.groups.tolist())
        wanted = _number(layer, scores, amount)
        if lost != wanted:
            raise SurgeryError(
                f"{layer.label} is tied to layers of other sizes or ratios and would lose {lost} units instead of "
                f"{wanted}",
                hint="give tied layers the same `count` or ratio, or name one of them under `ignore`",
            )


def _globally(layers: Sequence[Layer], scores: Scores, pinned: Mapping[int, str], amount: Amount) -> dict[int, None]:
    relative: dict[int, float] = {}
    for layer in layers:
        mean = float(scores[layer.groups].mean()) or 1.0
        for group in layer.groups.tolist():
            relative[group] = max(relative.get(group, 0.0), float(scores[group]) / mean)
    free = [group for group in relative if group not in pinned]
    number = amount.removed_of(len(relative))
    if not 0 < number <= len(free):
        raise SurgeryError(
            f"{number} of {len(relative)} {layers[0].unit}s should go, {len(free)} can",
            hint="change `ratio`, `targets` or `ignore`",
        )
    order = sorted(free, key=relative.__getitem__)
    removed = dict.fromkeys(order[:number])
    for layer in layers:
        # At least one unit stays in each layer, and as many as `round_to` asks for.
        groups, size = dict.fromkeys(layer.groups.tolist()), len(layer.groups)
        lost = sorted((group for group in groups if group in removed), key=relative.__getitem__)
        kept = amount.rounded(max(1, size - len(lost) * layer.together), size, layer.together)
        for group in lost[(size - kept) // layer.together :]:
            del removed[group]
    if not removed:
        raise SurgeryError(f"no {layers[0].unit} would go after rounding", hint="raise `ratio` or lower `round_to`")
    return removed
