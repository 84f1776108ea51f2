"""Which stacks of layers `targets` and `ignore` choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import MethodError
from compressor.methods.patterns import Candidate, refuse_unmatched, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from compressor.report import Skip
    from compressor.surgery.depth.stacks import Stack


def select_stacks(
    model: nn.Module, targets: Sequence[str] | None, ignore: Sequence[str]
) -> tuple[list[Stack], list[Skip]]:
    """The stacks that `targets` names, or all that do not lie inside a layer of another stack; and those left alone.

    Raises:
        MethodError: The model has none, a pattern matches none, or nothing is left.
    """
    from compressor.surgery.depth.stacks import outermost, stacks

    found = stacks(model)
    if not found:
        raise MethodError(
            "the model has no stack of layers: no `ModuleList` or `Sequential` with two layers of one structure, and "
            "no recurrent module of several layers of one size",
            hint="put the layers into an `nn.ModuleList`",
        )
    outer = {stack.name for stack in outermost(found)}
    candidates = [Candidate(stack.name, "layer" if stack.name in outer else "other", (stack.name,)) for stack in found]
    refuse_unmatched(targets or (), candidates, model, why="is not a stack of layers of one structure")
    selection = select(candidates, targets, ignore, not_by_default="inside a layer of another stack")
    return [stack for stack in found if stack.name in selection.names], list(selection.skipped)
