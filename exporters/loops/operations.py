"""An operation of a traced program, and trees of arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INPUT, CONSTANT = "input", "constant"
"""Targets of what is not computed."""


@dataclass(eq=False)
class Op:
    """An operation and its result; arguments are trees of operations, numbers and so on."""

    target: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    """The result of the tracer: a tensor without numbers, or a size."""
    name: str = ""
    """Of an input or constant."""
    code: str = ""
    """The line of the model that it comes from, if it is known."""

    @property
    def is_size(self) -> bool:
        """A number that depends on sizes alone."""
        return isinstance(self.value, (int, torch.SymInt))


def map_tree(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same tree with every leaf changed."""
    if isinstance(tree, (list, tuple)):
        return tuple(map_tree(part, change) for part in tree)
    if isinstance(tree, dict):
        return {key: map_tree(part, change) for key, part in tree.items()}
    return change(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """All leaves, in order."""
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from leaves(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from leaves(part)
    else:
        yield tree


def used(op: Op) -> Iterator[Op]:
    """The operations whose results an operation takes."""
    for leaf in leaves((op.args, op.kwargs)):
        if isinstance(leaf, Op):
            yield leaf


def key_of(target: Any, args: Any, kwargs: Any) -> Any:
    """What two operations have in common that give the same."""

    def frozen(leaf: Any) -> Any:
        return ("op", id(leaf)) if isinstance(leaf, Op) else (type(leaf).__name__, repr(leaf))

    return target, map_tree(tuple(args), frozen), tuple(sorted(map_tree(dict(kwargs), frozen).items()))
