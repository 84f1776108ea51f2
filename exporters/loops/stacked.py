"""Results of all steps of a loop, stacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from exporters.loops.operations import leaves, map_tree


@dataclass(frozen=True)
class Stacked:
    """Results of all steps: (N, *S), or several such of an operator that gives several tensors."""

    value: Any

    @property
    def rank(self) -> int:
        """Of a single step."""
        return int(self.value.dim()) - 1


def plain(tree: Any) -> Any:
    """The tensors of a tree of arguments."""
    return map_tree(tree, lambda leaf: leaf.value if isinstance(leaf, Stacked) else leaf)


def is_stacked(*tree: Any) -> bool:
    """Whether any argument changes from step to step."""
    return any(isinstance(leaf, Stacked) for leaf in leaves(tree))


def rank_of(leaf: Any) -> int:
    """Of a single step; 0 for what is no tensor."""
    if isinstance(leaf, Stacked):
        return leaf.rank
    return leaf.dim() if isinstance(leaf, Tensor) else 0


def padded(leaf: Any, rank: int) -> Any:
    """With axes of size 1 behind that of the steps, so that a single step has `rank` axes."""
    if not isinstance(leaf, Stacked):
        return leaf
    value = leaf.value
    for _ in range(rank - leaf.rank):
        value = value.unsqueeze(1)
    return value
