"""Weights that share a magnitude threshold, pruned to a goal in one or more rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from compressor.nn.masks import pruned_count, smallest_pruned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

Schedule = Literal["linear", "cubic"]


@dataclass(frozen=True)
class WeightGroup:
    """Weights that share one threshold."""

    names: tuple[str, ...]
    pruned: int
    """Before this step."""
    goal: int
    """Pruned weights after it."""

    def count_at(self, progress: float, schedule: Schedule | None) -> int:
        """Pruned weights after the fraction `progress` = t / n of the rounds, exactly the goal after the last one.

        s_t = s_f + (s_0 - s_f) (1 - t / n)^e with e = 3 (`cubic`) or 1 (`linear`), halves rounded up.
        """
        left = (1.0 - progress) ** (3 if schedule == "cubic" else 1)
        return math.floor(self.goal + (self.pruned - self.goal) * left + 0.5)


def weight_groups(
    masks: Mapping[str, Tensor], names: Sequence[str], sparsity: float, *, by_layer: bool
) -> tuple[list[WeightGroup], dict[str, str]]:
    """The groups of weights, and name -> reason of those that have nothing to lose.

    Args:
        masks: Parameter name -> boolean mask, True = kept.
        names: The weights to prune.
        sparsity: Fraction of the weights of a group that is zero afterwards.
        by_layer: A threshold for each weight matrix; else one for all of them.
    """
    groups: list[WeightGroup] = []
    idle: dict[str, str] = {}
    for members in [(name,) for name in names] if by_layer else [tuple(names)]:
        total = sum(masks[name].numel() for name in members)
        pruned = total - sum(int(masks[name].sum()) for name in members)
        goal = pruned_count(total, sparsity)
        if goal > pruned:
            groups.append(WeightGroup(members, pruned, goal))
        else:
            reason = f"{pruned} of {total} weights are pruned already, sparsity {sparsity} asks for {goal}"
            idle |= dict.fromkeys(members, reason)
    return groups, idle


def round_masks(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    groups: Sequence[WeightGroup],
    progress: float,
    schedule: Schedule | None,
) -> dict[str, Tensor]:
    """New masks of the groups' weights after the fraction `progress` of the rounds."""
    new: dict[str, Tensor] = {}
    for group in groups:
        weights = [model.get_parameter(name) for name in group.names]
        kept = [masks[name] for name in group.names]
        new |= zip(group.names, smallest_pruned(weights, kept, group.count_at(progress, schedule)), strict=True)
    return new


def sparsity_of(masks: Mapping[str, Tensor], groups: Sequence[WeightGroup]) -> float:
    """Fraction of the groups' weights that is pruned."""
    of_groups = [masks[name] for group in groups for name in group.names]
    return 1.0 - sum(int(mask.sum()) for mask in of_groups) / sum(mask.numel() for mask in of_groups)
