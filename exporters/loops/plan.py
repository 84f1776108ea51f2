"""How each operation in the body of a loop is computed for all iterations.

The body falls into strongly connected components, whose results go into a later iteration of themselves, and is split
between them:

- `ACCESS`: step i of a tensor, which is the tensor itself;
- `WRITE`: writing step i into a tensor, or joining it to one, that nothing else reads meanwhile: the stacked steps;
- `VECTOR`: no feedback, and a rule for all steps at once (`vectorized`);
- `CELL`: a recurrent cell of PyTorch with constant weights, which is a native node;
- `SCAN`: all else, as few `Scan` nodes as the order allows;
- `DEAD`: what nothing reads.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.nn.recurrent import cells as recurrent
from exporters.loops import vectorized
from exporters.loops.find import NotRolledError, Same
from exporters.loops.graph import CONSTANT, leaves, map_tree
from exporters.loops.unify import Affine, At, Iteration, Node, Other, Steps

if TYPE_CHECKING:
    from compressor.nn.recurrent.cells import Cell
    from exporters.loops.unify import Body, Program

_OPS = torch.ops.aten
CELLS: dict[Any, Cell] = {cell.step_operator: cell for cell in recurrent.CELLS.values() if cell.gates.operator}
"""PyTorch's function for one step -> the cell, if ONNX has an operator for it."""
_TRIED = 7
"""Steps on which rules are tried."""


class Kind(Enum):
    """See the module."""

    ACCESS = auto()
    WRITE = auto()
    VECTOR = auto()
    CELL = auto()
    SCAN = auto()
    DEAD = auto()


@dataclass
class Group:
    """What one `Scan` computes: operations of a body, in order."""

    places: list[int]
    states: list[tuple[int, int]] = field(default_factory=list)
    """Operation and lag of the earlier results that are read."""
    steps: list[Any] = field(default_factory=list)
    """What changes from iteration to iteration and comes from outside."""
    outputs: list[int] = field(default_factory=list)
    """Operations of which more than the last results are read."""


@dataclass
class Plan:
    """Of one loop."""

    body: Body
    kinds: list[Kind]
    groups: dict[int, Group]
    """By operation."""
    padded: bool
    """There may be no iteration at all: one more is computed than there are, since neither nodes nor `Scan` take 0."""


def plan(program: Program, min_length: int) -> list[Plan]:
    """The plans of all loops of a program.

    Raises:
        NotRolledError: A loop does what none of these ways allows.
    """
    return [_Planner(program, index, min_length).plan() for index in range(len(program.loops))]


def is_constant(node: Node) -> bool:
    """Whether a result depends on constants alone."""
    if node.target == CONSTANT:
        return True
    given = list(leaves((node.args, node.kwargs)))
    tensors = [leaf for leaf in given if isinstance(leaf, Node)]
    others = any(isinstance(leaf, (At, Steps, Affine)) for leaf in given)
    return bool(tensors) and not others and node.target != "input" and all(is_constant(leaf) for leaf in tensors)


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


class _Planner:
    def __init__(self, program: Program, index: int, min_length: int) -> None:
        self._program, self._index = program, index
        self._body = program.loops[index]
        self._min_length = min_length
        self._size = len(self._body.targets)
        self._reads = [[leaf for leaf in leaves(tree) if isinstance(leaf, Same)] for tree in self._body.arguments]
        self._wanted = self._read_from_outside()
        self._dead = self._unread()
        for place in self._dead:
            self._reads[place] = []

    def plan(self) -> Plan:
        body = self._body
        padded = bool(body.count.at(self._min_length) < 1)
        components = self._components()
        kinds: list[Any] = [None] * self._size
        for members in components:
            kind = self._kind(members, padded)
            for place in members:
                kinds[place] = kind
        changed = True
        while changed:  # a part of what a `Scan` computes is computed there
            changed = False
            for place in range(self._size):
                source: Any = body.arguments[place][0][0] if body.arguments[place][0] else None
                part = body.targets[place] is operator.getitem and isinstance(source, Same)
                if part and kinds[source.place] is Kind.SCAN and kinds[place] not in (Kind.SCAN, Kind.DEAD):
                    kinds[place], changed = Kind.SCAN, True
        for place in range(self._size):
            if body.growing[place] and kinds[place] not in (Kind.WRITE, Kind.DEAD):
                raise _grown(body.codes[place])
        groups = self._groups(kinds, components, padded)
        return Plan(body, kinds, groups, padded)

    # --- what depends on what ---

    def _components(self) -> list[list[int]]:
        """Strongly connected components of the body, each in order."""
        reach = [0] * self._size  # bit masks of what each operation depends on
        for place, read in enumerate(self._reads):
            for leaf in read:
                reach[place] |= 1 << leaf.place
        changed = True
        while changed:
            changed = False
            for place in range(self._size):
                wider = reach[place]
                rest = wider
                while rest:
                    lowest = rest & -rest
                    wider |= reach[lowest.bit_length() - 1]
                    rest ^= lowest
                if wider != reach[place]:
                    reach[place], changed = wider, True
        self._reach = reach
        found: list[list[int]] = []
        seen: set[int] = set()
        for place in range(self._size):
            if place not in seen:
                members = [
                    other
                    for other in range(self._size)
                    if other == place or (reach[place] >> other & 1 and reach[other] >> place & 1)
                ]
                seen.update(members)
                found.append(members)
        return found

    def _read_from_outside(self) -> dict[int, set[Any]]:
        """Operation -> how it is read outside the loop: `At` its one iteration, or something else."""
        found: dict[int, set[Any]] = {}

        def look(tree: Any) -> None:
            for leaf in leaves(tree):
                if isinstance(leaf, (At, Steps, Other)) and leaf.loop == self._index:
                    found.setdefault(leaf.place, set()).add(leaf if isinstance(leaf, At) else "steps")

        for node in self._program.nodes:
            look((node.args, node.kwargs))
        for loop in self._program.loops:
            look((loop.arguments, list(loop.initial.values())))
        look(self._program.outputs)
        return found

    def _unread(self) -> set[int]:
        """Operations on which no result depends that is read outside."""
        live: set[int] = set()
        waiting = list(self._wanted)
        while waiting:
            place = waiting.pop()
            if place not in live:
                live.add(place)
                waiting += [leaf.place for leaf in self._reads[place]]
        return set(range(self._size)) - live

    def _last(self) -> Affine:
        return Affine(self._body.count.slope, self._body.count.offset - 1)

    def _only_last(self, place: int) -> bool:
        """Whether outside the loop at most the result of the last iteration is read."""
        return all(isinstance(leaf, At) and leaf.index == self._last() for leaf in self._wanted.get(place, ()))

    # --- kinds ---

    def _kind(self, members: list[int], padded: bool) -> Kind:
        place = members[0]
        if place in self._dead:
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
        return Kind.CELL if self._is_cell(members, padded) else Kind.SCAN

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
            return vectorized.Stacked(torch.empty(_TRIED, dtype=torch.int64, device="meta"))
        if isinstance(leaf, Affine):
            return leaf.at(self._program.lengths[0])
        if isinstance(leaf, At):
            return hinted(self._program.loops[leaf.loop].values[leaf.place][0])
        if isinstance(leaf, Node):
            value = leaf.values[0]
            return hinted(value) if isinstance(value, (Tensor, tuple, list)) else size_hint(value)
        return leaf

    def _is_write(self, place: int) -> bool:
        """`out[:, t] = y` and `out = torch.cat([out, y], 1)`, where `out` is read after the loop."""
        target, (args, _) = self._body.targets[place], self._body.arguments[place]
        alone = all(leaf.place != place for other, read in enumerate(self._reads) if other != place for leaf in read)
        if not alone or not self._only_last(place):
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

    def _is_cell(self, members: list[int], padded: bool) -> bool:
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
        return self._is_lstm(cell, members, states, padded=padded)

    def _is_lstm(self, cell: int, members: list[int], states: Any, *, padded: bool) -> bool:
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
        return not read_c and self._only_last(numbers[1]) and not (padded and numbers[1] in self._wanted)

    # --- scans ---

    def _groups(self, kinds: list[Kind], components: list[list[int]], padded: bool) -> dict[int, Group]:
        """One group for all operations between which nothing is computed outside a `Scan`."""
        level = [0] * self._size
        whole = {place: members for members in components for place in members}
        changed = True
        while changed:
            changed = False
            for members in components:
                best = 0
                for place in members:
                    for leaf in self._reads[place]:
                        if leaf.place not in members:
                            leaves_scan = kinds[leaf.place] is Kind.SCAN and kinds[place] is not Kind.SCAN
                            best = max(best, level[leaf.place] + leaves_scan)
                for place in whole[members[0]]:
                    if level[place] < best:
                        level[place], changed = best, True
        found: dict[int, Group] = {}
        for number in sorted(set(level)):
            places = [place for place in range(self._size) if kinds[place] is Kind.SCAN and level[place] == number]
            if places:
                found.update(dict.fromkeys(places, self._group(places, padded)))
        return found

    def _group(self, places: list[int], padded: bool) -> Group:
        group = Group(places)
        lags: dict[int, int] = {}
        for place in places:
            for leaf in leaves(self._body.arguments[place]):
                if isinstance(leaf, Same) and leaf.place in places:
                    if leaf.lag:
                        lags[leaf.place] = max(lags.get(leaf.place, 0), leaf.lag)
                elif isinstance(leaf, (Same, Other, Iteration)) and leaf not in group.steps:
                    group.steps.append(leaf)
            self._refuse_unfit(place)
        group.states = [(place, lag) for place, most in sorted(lags.items()) for lag in range(1, most + 1)]
        for place in places:
            inside = any(
                leaf.place == place for other, read in enumerate(self._reads) if other not in places for leaf in read
            )
            by_state = self._only_last(place) and (place, 1) in group.states and not padded
            if inside or (place in self._wanted and not by_state):
                group.outputs.append(place)
        if not group.steps:
            group.steps.append(Iteration(1, Affine(0, 0)))
        return group

    def _refuse_unfit(self, place: int) -> None:
        """The number of the step may go where a tensor does, and nowhere else."""
        target, (args, kwargs) = self._body.targets[place], self._body.arguments[place]
        code = self._body.codes[place]
        if any(isinstance(leaf, Iteration) for leaf in leaves((args, kwargs))):
            schema = getattr(target, "_schema", None)
            for position, leaf in enumerate(args):
                tensor = schema is not None and str(schema.arguments[position].type) == "Tensor"
                chosen = target is _OPS.select.int and position == 2
                if any(isinstance(part, Iteration) for part in leaves(leaf)) and not (
                    isinstance(leaf, Iteration) and (tensor or chosen)
                ):
                    raise _grown(code)


def _grown(code: str) -> NotRolledError:
    where = f" at `{code}`" if code else ""
    return NotRolledError(
        f"what is computed{where} has another size or another setting at every step",
        "give every step tensors of one size: a mask over all positions instead of `x[:, :t]`",
    )


def slice_width(args: Any) -> int | None:
    """The width of `x[:, t + a : t + b]`, or None where it is something else."""
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
        return vectorized.Stacked(tuple(_stacked(part).value for part in value))
    hint = hinted(value)
    return vectorized.Stacked(torch.empty((_TRIED, *hint.shape), dtype=hint.dtype, device="meta"))
