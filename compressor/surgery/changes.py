"""What a step changed, for the report: parameters before and after, and how many of them are not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from compressor.report import Change, Skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class Surgery:
    """A smaller model, and what was done to it."""

    model: nn.Module
    masks: dict[str, Tensor]
    structure: tuple[dict[str, Any], ...]
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """Of a layer."""

    parameters: int
    nonzeros: int
    """How many of them are not zero."""


def size_of(tensors: Iterable[Tensor]) -> Size:
    """The size of these parameters together."""
    every = list(tensors)
    return Size(sum(part.numel() for part in every), sum(int(part.count_nonzero()) for part in every))


def change(name: str, action: str, before: Size, after: Size, *, note: str) -> Change:
    """A change to the module called `name`."""
    return Change(
        name=name,
        action=action,
        parameters_before=before.parameters,
        parameters_after=after.parameters,
        nonzeros_before=before.nonzeros,
        nonzeros_after=after.nonzeros,
        note=note,
    )


def masked_changes(
    before: nn.Module, old_masks: Mapping[str, Tensor], after: nn.Module, masks: Mapping[str, Tensor]
) -> tuple[Change, ...]:
    """One `masked` change for each weight whose mask is new or smaller."""
    changes: list[Change] = []
    for name, mask in masks.items():
        known = old_masks.get(name)
        pruned = int((~mask).sum())
        if pruned == (0 if known is None else int((~known).sum())):
            continue
        sizes = [size_of([model.get_parameter(name)]) for model in (before, after)]
        masked = change(name, "masked", *sizes, note=f"{pruned} of {mask.numel()} pruned")
        shape = tuple(mask.shape)
        changes.append(masked.model_copy(update={"shape_before": shape, "shape_after": shape}))
    return tuple(changes)


def trained_changes(
    before: nn.Module, after: nn.Module, masks: Mapping[str, Tensor]
) -> tuple[tuple[Change, ...], tuple[Skip, ...]]:
    """A `trained` change for each module whose own parameters differ, and the parameters that do not.

    Pruned weights do not count as different.
    """
    old = dict(before.named_parameters())
    skipped: list[Skip] = []
    groups: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, parameter in after.named_parameters():
        was = old[name].detach().to(parameter.device)
        if name in masks:
            was = was.masked_fill(~masks[name].to(parameter.device), 0.0)
        if torch.equal(was, parameter):
            frozen = "frozen: `requires_grad` is False"
            idle = "unchanged: it received no gradient, or all of it is pruned"
            skipped.append(Skip(name=name, reason=idle if parameter.requires_grad else frozen))
        else:
            groups.setdefault(name.rpartition(".")[0], []).append((was, parameter.detach()))
    return tuple(_trained(name, pairs) for name, pairs in groups.items()), tuple(skipped)


def _trained(module: str, pairs: list[tuple[Tensor, Tensor]]) -> Change:
    largest = max(float((after - before).abs().max()) for before, after in pairs)
    before, after = (size_of(side) for side in zip(*pairs, strict=True))
    return change(module or "(model)", "trained", before, after, note=f"largest change {largest:.3g}")
