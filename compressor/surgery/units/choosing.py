"""Which groups go: so many from each layer, or the lowest of all layers together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import SurgeryError
from compressor.nn.names import in_words
from compressor.report import Skip
from compressor.surgery.units.choice import Amount, Choice, Layer, Scores
from compressor.surgery.units.failures import leave_alone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
        required: Modules that were asked for by name: if one of them cannot shrink by that much, that is an error and
            no skip.

    Raises:
        SurgeryError: Nothing or everything would go, or a required layer cannot shrink.
    """
    usable, skipped = usable_layers(layers, pinned, required)
    if amount.scope == "global":
        removed = _globally(usable, scores, pinned, amount)
    else:
        removed, left_alone = _from_each(usable, scores, pinned, amount, required)
        skipped += left_alone
    if not removed and skipped:
        raise nothing_left(skipped)
    if not removed:
        raise SurgeryError("no unit would go: none scores low enough", hint="ask for a `ratio`")
    return Choice(np.array(sorted(removed), np.int64), tuple(dict.fromkeys(skipped)))  # both directions say it once


def usable_layers(
    layers: Sequence[Layer], pinned: Mapping[int, str], required: frozenset[str]
) -> tuple[list[Layer], list[Skip]]:
    """The layers some of whose groups can go, and the others with the reason; arguments and errors as of `choose`."""
    usable, skipped = [], []
    for layer in layers:
        reason = _why_not(layer, pinned)
        if reason is None:
            usable.append(layer)
        elif layer.module in required and not layer.optional:
            raise SurgeryError(
                f"{layer.unit}s of {layer.label} cannot be removed: {reason}",
                hint=f"{leave_alone(layer.module)}; the model is untouched",
            )
        else:
            skipped.append(Skip(name=layer.module, reason=reason))
    if not usable:
        raise nothing_left(skipped)
    return usable, skipped


def nothing_left(skipped: Sequence[Skip]) -> SurgeryError:
    """The error of a step all of whose layers are skipped; layers with one reason for both directions say it once."""
    reasons = "; ".join(dict.fromkeys(f"{in_words(skip.name)}: {skip.reason}" for skip in skipped))
    return SurgeryError(f"nothing can be removed ({reasons})", hint="choose other layers with `targets`")


def _why_not(layer: Layer, pinned: Mapping[int, str]) -> str | None:
    groups = layer.groups.tolist()
    if len(set(groups)) == 1 < len(groups):
        return "all its units depend on each other, so single ones cannot be removed"
    if all(group in pinned for group in groups):
        return "; ".join(sorted({pinned[group] for group in groups}))
    return None


def _from_each(
    layers: Sequence[Layer],
    scores: Scores,
    pinned: Mapping[int, str],
    amount: Amount,
    required: frozenset[str],
) -> tuple[dict[int, None], list[Skip]]:
    """What goes if each layer loses its share; those with few groups first, since they leave others less choice."""
    removed: dict[int, None] = {}
    wanted: dict[int, int] = {}
    skipped: list[Skip] = []
    for index in sorted(range(len(layers)), key=lambda index: len(layers[index].sizes())):
        layer = layers[index]
        try:
            wanted[index] = _number(layer, scores, amount)
            removed |= _from_layer(layer, scores, pinned, wanted[index], removed)
        except SurgeryError as error:
            if layer.module in required and not layer.optional:
                raise
            wanted.pop(index, None)
            skipped.append(Skip(name=layer.module, reason=error.message))
    for index, number in wanted.items():
        reason = _why_another_number(layers[index], removed, number, amount)
        if reason is None:
            continue
        if layers[index].module in required and not layers[index].optional:
            raise SurgeryError(
                f"{layers[index].label} {reason}",
                hint="give tied layers the same `count` or ratio, or name one of them under `ignore`",
            )
        skipped.append(Skip(name=layers[index].module, reason=reason))
    return removed, skipped


def _from_layer(
    layer: Layer, scores: Scores, pinned: Mapping[int, str], number: int, before: Mapping[int, None]
) -> dict[int, None]:
    """The lowest groups of a layer which together have so many of its units; `before` are gone already."""
    sizes = layer.sizes()
    free = [group for group in dict.fromkeys(layer.groups.tolist()) if group not in before and group not in pinned]
    lost = sum(size for group, size in sizes.items() if group in before)
    possible = lost + sum(sizes[group] for group in free)
    if possible < number:
        reasons = "; ".join(sorted({pinned[group] for group in sizes if group in pinned}))
        raise SurgeryError(
            f"{number} of the {len(layer.groups)} {layer.unit}s of {layer.label} should go, only {possible} can: "
            f"{reasons}",
            hint="lower `ratio` or `count`",
        )
    chosen: dict[int, None] = {}
    for index in sorted(range(len(free)), key=lambda index: float(scores[free[index]])):
        if lost + sizes[free[index]] <= number:
            chosen[free[index]] = None
            lost += sizes[free[index]]
    return chosen


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


def _why_another_number(layer: Layer, removed: Mapping[int, None], wanted: int, amount: Amount) -> str | None:
    """Tied layers share groups: what one chose another loses too; a reason if the number does not come out."""
    sizes = layer.sizes()
    lost = sum(size for group, size in sizes.items() if group in removed)
    nearest = wanted - lost < max(sizes.values()) and amount.round_to == 1  # no group is small enough for the rest
    if lost == wanted or (len(set(sizes.values())) > 1 and wanted - lost >= 0 and nearest):
        return None
    return f"is tied to layers of other sizes or ratios and would lose {lost} units instead of {wanted}"


def _globally(layers: Sequence[Layer], scores: Scores, pinned: Mapping[int, str], amount: Amount) -> dict[int, None]:
    relative: dict[int, float] = {}
    for layer in layers:
        own = scores[layer.groups]
        compared = lamp(own) if amount.compared == "lamp" else own / (float(own.mean()) or 1.0)
        for group, score in zip(layer.groups.tolist(), compared.tolist(), strict=True):
            relative[group] = max(relative.get(group, 0.0), score)
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
        _give_back(layer, removed, relative, amount)
    if not removed:
        raise SurgeryError(f"no {layers[0].unit} would go after rounding", hint="raise `ratio` or lower `round_to`")
    return removed


def lamp(norms: Scores) -> Scores:
    r"""Norms of one layer such that those of several can be compared: :math:`n_u^2 / \sum_{v: n_v \geq n_u} n_v^2`.

    The part of what the layer would still have if it lost all smaller units, so its largest unit has 1 if it is alone.
    Lee et al., Layer-adaptive sparsity for the magnitude-based pruning, arXiv 2010.07611, for units.
    """
    squares = norms**2
    ascending = np.sort(squares)
    left = ascending[::-1].cumsum()[::-1][np.searchsorted(ascending, squares)]
    return np.where(left > 0.0, squares / np.where(left > 0.0, left, 1.0), 0.0)


def _give_back(layer: Layer, removed: dict[int, None], relative: Mapping[int, float], amount: Amount) -> None:
    """At least one unit stays in each layer, and as many as `round_to` asks for; the best of those chosen stay."""
    sizes, size = layer.sizes(), len(layer.groups)
    lost = sorted((group for group in sizes if group in removed), key=relative.__getitem__)
    gone = sum(sizes[group] for group in lost)
    kept = amount.rounded(max(1, size - gone), size, layer.together)
    while lost and gone > size - kept:
        group = lost.pop()
        gone -= sizes[group]
        del removed[group]
