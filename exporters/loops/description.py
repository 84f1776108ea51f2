"""A model with loops at any length: what is computed outside the loops, and what in each iteration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from exporters.loops.operations import CONSTANT, INPUT, leaves


@dataclass(frozen=True)
class Affine:
    """The integer slope * T + offset at sequences of length T."""

    slope: int
    offset: int

    def at(self, length: Any) -> Any:
        """Its value; a symbol where the length is one."""
        return self.offset if self.slope == 0 else self.slope * length + self.offset

    def plus(self, other: Affine, factor: int = 1) -> Affine:
        """This and `factor` times another one."""
        return Affine(self.slope + factor * other.slope, self.offset + factor * other.offset)

    @property
    def last(self) -> Affine:
        """The number of the last of so many."""
        return Affine(self.slope, self.offset - 1)


def through(lengths: tuple[int, int], a: int, b: int) -> Affine | None:
    """The function of the length that is `a` at the first and `b` at the second one; None if it is no integer."""
    slope, rest = divmod(b - a, lengths[1] - lengths[0])
    return None if rest else Affine(slope, a - slope * lengths[0])


@dataclass(frozen=True)
class Iteration:
    """The integer step * i + start in iteration i of a loop."""

    step: int
    start: Affine


@dataclass(frozen=True)
class Other:
    """What operation `place` of another loop gives in iteration step * i + start."""

    loop: int
    place: int
    step: int
    start: Affine


@dataclass(frozen=True)
class At:
    """What operation `place` of a loop gives in one iteration."""

    loop: int
    place: int
    index: Affine


@dataclass(frozen=True)
class Steps:
    """What operation `place` of a loop gives in some iterations, as items of a list."""

    loop: int
    place: int
    first: Affine
    count: Affine
    step: int


@dataclass(eq=False)
class Node:
    """An operation outside all loops."""

    target: Any
    args: Any = ()
    kwargs: Any = field(default_factory=dict)
    values: tuple[Any, Any] = (None, None)
    """The result of the tracer at both lengths."""
    name: str = ""
    code: str = ""


@dataclass
class Body:
    """A loop."""

    count: Affine
    """Number of iterations."""
    targets: list[Any]
    arguments: list[Any]
    """For each operation (args, kwargs), whose leaves are Node, Same, Iteration, Other, At, Affine or a constant."""
    values: list[tuple[Any, Any]]
    codes: list[str]
    growing: list[bool]
    """Whether the results of an operation have other sizes in other iterations."""
    initial: dict[tuple[int, int], Any]
    """(place, lag) -> what stands for that operation so many iterations before the first."""


@dataclass
class Program:
    """A model at any length."""

    lengths: tuple[int, int]
    nodes: list[Node]
    """In order; inputs and constants as well."""
    inputs: list[Node]
    loops: list[Body]
    outputs: Any
    constants: dict[str, Tensor]


def is_constant(node: Node) -> bool:
    """Whether a result depends on constants alone."""
    if node.target == CONSTANT:
        return True
    arguments = list(leaves((node.args, node.kwargs)))
    tensors = [leaf for leaf in arguments if isinstance(leaf, Node)]
    others = any(isinstance(leaf, (At, Steps, Affine)) for leaf in arguments)
    return bool(tensors) and not others and node.target != INPUT and all(is_constant(leaf) for leaf in tensors)


def hinted(value: Any) -> Any:
    """A tensor on the device `meta` with the sizes of the trace."""
    if isinstance(value, (tuple, list)):
        return tuple(hinted(part) for part in value)
    if not isinstance(value, Tensor):
        return value
    return torch.empty([size_hint(size) for size in value.shape], dtype=value.dtype, device="meta")


def size_hint(size: Any) -> int:
    """The size in the trace."""
    return size if isinstance(size, int) else int(size.node.hint)
