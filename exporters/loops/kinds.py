"""By what an operation in the body of a loop is computed for all iterations."""

from __future__ import annotations

import operator
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.nn.recurrent import cells as recurrent
from exporters.loops import vectorized
from exporters.loops.description import Affine, At, Iteration, Node, Other, hinted, is_constant, size_hint
from exporters.loops.operations import map_tree
from exporters.loops.relations import Same
from exporters.loops.stacked import Stacked

if TYPE_CHECKING:
    from compressor.nn.recurrent.cells import Cell
    from exporters.loops.dependencies import Dependencies

_OPS = torch.ops.aten
CELLS: dict[Any, Cell] = {cell.step_operator: cell for cell in recurrent.CELLS.values() if cell.is_native}
"""PyTorch's function for one step -> the cell, if ONNX has an operator for it."""
_TRIED = 7
"""Steps on which rules are tried."""


class Kind(Enum):
    """See `plan`."""

    ACCESS = auto()
    WRITE = auto()
    VECTOR = auto()
    CELL = auto()
    SCAN = auto()
    DEAD = auto()


class Kinds:
    """Chooses the kind of each operation of a loop."""

    def __init__(self, dependencies: Dependencies, *, padded: bool) -> None:
        """For a loop; `padded`: there may be no iteration at all."""
        self._dependencies, self._padded = dependencies, padded
        self._program, self._body = dependencies.program, dependencies.body
        self._reads, self._wanted = dependencies.reads, dependencies.wanted

    def choose(self) -> list[Kind]:
        """The kind of each operation."""
        kinds = [Kind.DEAD] * self._dependencies.size
        for members in self._dependencies.components:
            kind = self._kind(members)
            for place in members:
                kinds[place] = kind
        changed = True
        while changed:  # a part of what a `Scan` computes is computed there
            changed = False
            for place, kind in enumerate(kinds):
                source: Any = self._body.arguments[place][0][0] if self._body.arguments[place][0] else None
                part = self._body.targets[place] is operator.getitem and isinstance(source, Same)
                if part and kinds[source.place] is Kind.SCAN and kind not in (Kind.SCAN, Kind.DEAD):
                    kinds[place], changed = Kind.SCAN, True
        return kinds

    def _kind(self, members: list[int]) -> Kind:
        place = members[0]
        if place in self._dependencies.dead:
            return Kind.DEAD
        alone = len(members) == 1 and all(leaf.place != place for leaf in self._reads[place])
        if alone:
            if self._is_access(place):
                return Kind.ACCESS
            if self._is_vector(place):
                return Kind.VECTOR
            return Kind.SCAN
        if len(members) == 1 and self._is_write(place):
            return Kind.WRITE
        return Kind.CELL if self._is_cell(members) else Kind.SCAN

    def _is_access(self, place: int) -> bool:
        """`x[:, t]`, `x[:, t : t + 2]`."""
        target, (args, _) = self._body.targets[place], self._body.arguments[place]
        if not args or not isinstance(args[0], (Node, At)):
            return False
        if target is _OPS.select.int:
            return type(args[1]) is int and isinstance(args[2], Iteration)
        if target is _OPS.slice.Tensor and len(args) >= 4 and args[4:] in ((), (1,)):
            return type(args[1]) is int and slice_width(args) is not None
        return False

    def _is_vector(self, place: int) -> bool:
        args, kwargs = map_tree(self._body.arguments[place], self._tried)
        wanted = hinted(self._body.values[place][0])
        return vectorized.fits(self._body.targets[place], args, kwargs, wanted, _TRIED)

    def _tried(self, leaf: Any) -> Any:
        """An argument without numbers."""
        if isinstance(leaf, (Same, Other)):
            body = self._body if isinstance(leaf, Same) else self._program.loops[leaf.loop]
            return _stacked(body.values[leaf.place][0])
        if isinstance(leaf, Iteration):
            return Stacked(torch.empty(_TRIED, dtype=torch.int64, device="meta"))
        if isinstance(leaf, Affine):
            return leaf.at(self._program.lengths[0])
        if isinstance(leaf, At):
            return hinted(self._program.loops[leaf.loop].values[leaf.place][0])
        if isinstance(leaf, Node):
            value = leaf.values[0]
            return hinted(value) if isinstance(value, (Tensor, tuple, list)) else size_hint(value)
        return leaf

    def _is_write(self, place: int) -> bool:
        """`out[:, t] = y` and `out = torch.cat([out, y], 1)`, if `out` is read after the loop."""
        target, (args, _) = self._body.targets[place], self._body.arguments[place]
        alone = all(leaf.place != place for other, read in enumerate(self._reads) if other != place for leaf in read)
        if not alone or not self._dependencies.only_last(place):
            return False
        if target is _OPS.cat.default:
            return (
                len(args[0]) == 2 and Same(place, 1) in args[0] and all(isinstance(x, (Same, Other)) for x in args[0])
            )
        index = None
        if target is _OPS.select_scatter.default:
            index = args[3]
        elif target is _OPS.slice_scatter.default and len(args) >= 5 and args[5:] in ((), (1,)):
            index = args[3] if slice_width((None, None, args[3], args[4])) == 1 else None
        if not isinstance(index, Iteration) or index.step not in (1, -1):
            return False
        return args[0] == Same(place, 1) and isinstance(args[1], (Same, Other)) and type(args[2]) is int

    def _is_cell(self, members: list[int]) -> bool:
        """One cell that is given its own last states and constant weights, and whose inputs do not depend on it."""
        cells = [place for place in members if self._body.targets[place] in CELLS]
        if len(cells) != 1:
            return False
        cell = cells[0]
        args, kwargs = self._body.arguments[cell]
        sequence, states, *weights = args
        value = self._body.values[cell][0]
        value = value[0] if isinstance(value, (tuple, list)) else value
        constant = all(isinstance(part, Node) and is_constant(part) for part in weights if part is not None)
        inside = isinstance(sequence, Same) and sequence.place in members
        if kwargs or value.dim() != 2 or not constant or inside or not isinstance(sequence, (Same, Other)):
            return False
        if len(CELLS[self._body.targets[cell]].states) == 1:
            return members == [cell] and states == Same(cell, 1)
        return self._is_lstm(cell, members, states)

    def _is_lstm(self, cell: int, members: list[int], states: Any) -> bool:
        """Both states are its own, and of c no more than the last one is read, since the node gives no other."""
        parts = {place: self._body.arguments[place][0] for place in members if place != cell}
        if any(self._body.targets[place] is not operator.getitem for place in parts):
            return False
        numbers = {args[1]: place for place, args in parts.items() if args[0] == Same(cell, 0)}
        if len(numbers) != len(parts) or set(numbers) != {0, 1}:
            return False
        if states != (Same(numbers[0], 1), Same(numbers[1], 1)):
            return False
        others = [leaf for place, read in enumerate(self._reads) if place not in members for leaf in read]
        read_c = any(leaf.place == numbers[1] for leaf in others)
        return (
            not read_c
            and self._dependencies.only_last(numbers[1])
            and not (self._padded and numbers[1] in self._wanted)
        )


def slice_width(args: Any) -> int | None:
    """The width of `x[:, t + a : t + b]`, or None if it is something else."""
    first, last = args[2], args[3]
    if not isinstance(first, Iteration) or not isinstance(last, Iteration) or first.step != last.step:
        return None
    if first.start.slope != last.start.slope:
        return None
    width = last.start.offset - first.start.offset
    return width if width > 0 else None


def _stacked(value: Any) -> Any:
    """All steps of a result, without numbers."""
    if isinstance(value, (tuple, list)):
        return Stacked(tuple(_stacked(part).value for part in value))
    hint = hinted(value)
    return Stacked(torch.empty((_TRIED, *hint.shape), dtype=hint.dtype, device="meta"))
