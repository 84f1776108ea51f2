"""Finds the iterations of Python loops in two traces of one model, which differ in length alone.

The operations of a loop's iterations stand one behind the other and look the same but for integers, so the loop is a
run of equal signatures with a period, and it is a loop over time where the longer trace has more repetitions. From
two neighbouring iterations follows what each argument is: an invariant, an operation of the same or of
an earlier iteration, an integer a * i + b, or what another loop gives in iteration a * i + b. Every iteration has to
fit; those at the start which do not (`if t == 0`) stay outside.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from exporters.loops.graph import CONSTANT, Graph, Op, leaves, map_tree, used

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPEATS = 3
"""Fewest iterations in a row by which a loop is known."""
_PHASES = 64
"""Of longer iterations only one beginning is tried."""


class NotRolledError(Exception):
    """Why a model cannot be rolled up, and what to do about it where that is known."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        """Keep both."""
        super().__init__(reason)
        self.reason, self.hint = reason, hint


@dataclass(frozen=True)
class Same:
    """Operation `place` of the iteration `lag` before this one."""

    place: int
    lag: int


@dataclass(frozen=True)
class Counted:
    """The integer step * i + start in iteration i."""

    step: int
    start: int


@dataclass(frozen=True)
class Element:
    """What operation `place` of another loop gives in its iteration step * i + start."""

    loop: int
    place: int
    step: int
    start: int


@dataclass
class Loop:
    """The iterations of one loop in one trace."""

    index: int
    targets: list[Any]
    arguments: list[Any]
    """For each operation of the body its (args, kwargs), whose leaves are `Op` (an invariant), one of the above, or a
    constant."""
    instances: list[list[Op | None]]
    """For each operation its results, by iteration; None where nothing reads a result and it is not in the trace."""
    initial: dict[tuple[int, int], Any] = field(default_factory=dict)
    """(place, lag) -> what stands for that operation `lag` iterations before the first one."""

    @property
    def count(self) -> int:
        """Number of iterations."""
        return len(self.instances[0])


Where = dict[Op, tuple[int, int, int]]
"""Operation -> loop, place and iteration."""


def find(short: Graph, long: Graph) -> tuple[list[tuple[Loop, Loop]], Where, Where]:
    """The loops of both traces in order, and where each operation of them is."""
    sequences = [_looked_at(graph) for graph in (short, long)]
    signatures: dict[Any, int] = {}
    words = [[signatures.setdefault(_signature(op), len(signatures)) for op in ops] for ops in sequences]
    loops: list[tuple[Loop, Loop]] = []
    where: tuple[Where, Where] = ({}, {})
    for run in sorted(_growing_runs(*words), key=lambda run: run.starts[1]):
        parts = [ops[start:end] for ops, start, end in zip(sequences, run.starts, run.ends, strict=True)]
        shift = run.shift
        while (pair := _first_loop((short, long), parts, run.period, shift, where, len(loops))) is not None:
            for side, loop in enumerate(pair):
                for place, results in enumerate(loop.instances):
                    where[side].update({op: (loop.index, place, i) for i, op in enumerate(results) if op is not None})
                last = max(place for place, op in enumerate(parts[side]) if op in where[side])
                parts[side] = parts[side][last + 1 :]  # where the same layers run over something else
            loops.append(pair)
            shift = 0
    return loops, *where


def _looked_at(graph: Graph) -> list[Op]:
    """Operations on tensors, and those that make several tensors which differ in an integer, as `full(B, t)`."""
    made = Counter(_signature(op) for op in graph.ops if not op.is_size and not _reads_tensors(op))
    return [op for op in graph.ops if not op.is_size and (_reads_tensors(op) or made[_signature(op)] >= _REPEATS)]


def _reads_tensors(op: Op) -> bool:
    return any(isinstance(given.value, (Tensor, list, tuple)) for given in used(op))


def _first_loop(
    graphs: tuple[Graph, Graph],
    parts: list[list[Op]],
    period: int,
    shift: int,
    where: tuple[Where, Where],
    index: int,
) -> tuple[Loop, Loop] | None:
    """The first loop in a run, with that beginning of its iterations which makes most of them and reads least back."""
    best: tuple[Any, Loop, Loop] | None = None
    for phase in range(period if period <= _PHASES else 1):
        starts = ((phase - shift) % period, phase)
        one, other = (
            _build(graph, ops[start:], period, places, index)
            for graph, ops, start, places in zip(graphs, parts, starts, where, strict=True)
        )
        if one is None or other is None:
            continue
        rank = (other.count, -_lags(other), -phase)
        if best is None or rank > best[0]:
            best = rank, one, other
    return None if best is None else best[1:]


def _signature(op: Op) -> Any:
    def word(leaf: Any) -> Any:
        if isinstance(leaf, Op):
            return leaf.name if leaf.target == CONSTANT else "op"
        return "int" if type(leaf) is int else repr(leaf)

    return op.target, map_tree(op.args, word), tuple(sorted(map_tree(op.kwargs, word).items()))


# --- repetitions ---


@dataclass(frozen=True)
class _Run:
    """The same repeated operations in both traces."""

    period: int
    starts: tuple[int, int]
    ends: tuple[int, int]
    shift: int
    """By how much the first trace starts later in its iteration than the second."""


def _growing_runs(short: list[int], long: list[int]) -> list[_Run]:
    """Runs that are longer in the second trace, shortest periods first; they do not overlap."""
    short, long = list(short), list(long)
    found = []
    masked = -1
    for period in range(1, len(long) // _REPEATS + 1):
        theirs = list(_runs(short, period))
        for start, end in list(_runs(long, period)):
            word = long[start : start + period]
            for index, (other, other_end) in enumerate(theirs):
                shift = _shift(word, short[other : other + period])
                if shift is None:
                    continue
                del theirs[index]
                if end - start != other_end - other:
                    found.append(_Run(period, (other, start), (other_end, end), shift))
                    for words, first, last in ((short, other, other_end), (long, start, end)):
                        for place in range(first, last):
                            words[place] = masked
                            masked -= 1
                break
    return found


def _runs(words: list[int], period: int) -> Iterator[tuple[int, int]]:
    """Start and end of the parts that repeat with a period."""
    start = None
    for place in range(len(words) - period + 1):
        if place < len(words) - period and words[place] == words[place + period]:
            start = place if start is None else start
        elif start is not None:
            if place + period - start >= _REPEATS * period:
                yield start, place + period
            start = None


def _shift(word: list[int], other: list[int]) -> int | None:
    """By how much `word` has to be rotated to give the other one."""
    return next((shift for shift in range(len(word)) if word[shift:] + word[:shift] == other), None)


# --- one loop ---


def _build(graph: Graph, ops: list[Op], period: int, where: Where, index: int) -> Loop | None:
    """The loop whose iterations these operations are, or None where they do not fit together."""
    rows = [ops[first : first + period] for first in range(0, len(ops) - period + 1, period)]
    while rows and any(op in where for op in rows[0]):  # another loop ends with the same operations
        del rows[0]
    count = len(rows)
    if count < _REPEATS or any(op in where for row in rows for op in row):
        return None
    table = [[row[place] for row in rows] for place in range(period)]
    for pair in range(1, count - 1):
        loop = _around(graph, table, pair, where, index)
        if loop is not None:
            return loop
    return None


def _around(graph: Graph, table: list[list[Op]], pair: int, where: Where, index: int) -> Loop | None:
    """The loop of which iterations `pair` and the next are two."""
    count = len(table[0])
    own = {op: (place, i) for place, row in enumerate(table) for i, op in enumerate(row)}
    arguments = [_relation(row[pair], row[pair + 1], pair, own, where) for row in table]
    if None in arguments:
        return None
    for first in range(pair + 1):
        initial = _fitting(table, arguments, first, pair + 2, own, where)
        if initial is not None:
            break
    else:
        return None
    last = pair + 2
    while last < count and _fitting(table, arguments, first, last + 1, own, where) is not None:
        last += 1
    moved = [map_tree(tree, lambda leaf: _moved(leaf, first)) for tree in arguments]
    instances: list[list[Op | None]] = [[*row[first:last]] for row in table]
    loop = Loop(index, [row[first].target for row in table], moved, instances, initial or {})
    _extend_back(loop, graph, where)
    while _extend(loop, graph, where):
        pass
    return loop if loop.count >= _REPEATS else None


def _relation(one: Op, two: Op, i: int, own: dict[Op, tuple[int, int]], where: Where) -> Any:
    """What the arguments of an operation in iterations i and i + 1 are, or None."""
    flat = [list(leaves((op.args, op.kwargs))) for op in (one, two)]
    if len(flat[0]) != len(flat[1]):
        return None
    found = [_leaf_relation(a, b, i, own, where) for a, b in zip(*flat, strict=True)]
    if _NOTHING in found:
        return None
    rest = iter(found)
    return map_tree((one.args, one.kwargs), lambda _: next(rest))


_NOTHING = object()


def _leaf_relation(a: Any, b: Any, i: int, own: dict[Op, tuple[int, int]], where: Where) -> Any:
    if isinstance(a, Op) and isinstance(b, Op):
        if a is b:
            return a
        if a in own and b in own:
            (place, earlier), (other, later) = own[a], own[b]
            return Same(place, i - earlier) if place == other and later == earlier + 1 and earlier <= i else _NOTHING
        if a in where and b in where:
            (loop, place, earlier), (other_loop, other, later) = where[a], where[b]
            step = later - earlier
            same = (loop, place) == (other_loop, other)
            return Element(loop, place, step, earlier - step * i) if same else _NOTHING
        return _NOTHING
    if type(a) is int and type(b) is int:
        return a if a == b else Counted(b - a, a - (b - a) * i)
    return a if type(a) is type(b) and repr(a) == repr(b) else _NOTHING


def _fitting(
    table: list[list[Op]], arguments: list[Any], first: int, last: int, own: dict[Op, tuple[int, int]], where: Where
) -> dict[tuple[int, int], Any] | None:
    """What stands for the iterations before `first`, where all from there to `last` fit; else None."""
    initial: dict[tuple[int, int], Any] = {}
    for place, row in enumerate(table):
        wanted = list(leaves(arguments[place]))
        for i in range(first, last):
            given = list(leaves((row[i].args, row[i].kwargs)))
            if len(given) != len(wanted):
                return None
            for relation, leaf in zip(wanted, given, strict=True):
                if isinstance(relation, Same) and i - relation.lag < first:
                    key = (relation.place, first - i + relation.lag)
                    inside = isinstance(leaf, Op) and leaf in own and own[leaf][1] >= first
                    if not isinstance(leaf, Op) or inside or initial.setdefault(key, leaf) is not leaf:
                        return None
                elif not _fits(relation, leaf, i, first, own, where):
                    return None
    return initial


def _fits(relation: Any, leaf: Any, i: int, first: int, own: dict[Op, tuple[int, int]], where: Where) -> bool:
    if isinstance(relation, Same):
        return isinstance(leaf, Op) and own.get(leaf) == (relation.place, i - relation.lag)
    if isinstance(relation, Counted):
        return type(leaf) is int and leaf == relation.step * i + relation.start
    if isinstance(relation, Element):
        place = (relation.loop, relation.place, relation.step * i + relation.start)
        return isinstance(leaf, Op) and where.get(leaf) == place
    if isinstance(relation, Op):
        return leaf is relation and (leaf not in own or own[leaf][1] < first)
    return type(leaf) is type(relation) and repr(leaf) == repr(relation)


def _moved(leaf: Any, first: int) -> Any:
    """A relation, with iterations counted from `first` on."""
    if isinstance(leaf, Counted):
        return Counted(leaf.step, leaf.start + leaf.step * first)
    if isinstance(leaf, Element):
        return Element(leaf.loop, leaf.place, leaf.step, leaf.start + leaf.step * first)
    return leaf


def _lags(loop: Loop) -> int:
    return sum(isinstance(leaf, Same) and leaf.lag > 0 for leaf in leaves(loop.arguments))


# --- iterations that stand in another order ---


def _extend_back(loop: Loop, graph: Graph, where: Where) -> None:
    """Take an iteration in front whose operations stand among others, as where the first one makes its own state."""
    if any(lag > 1 for _, lag in loop.initial):
        return
    found: dict[int, Op] = {}
    initial: dict[tuple[int, int], Any] = {}
    mine = {op for row in loop.instances for op in row}

    def match(place: int, op: Any) -> bool:
        if place in found or not isinstance(op, Op):
            return found.get(place) is op
        given, wanted = list(leaves((op.args, op.kwargs))), list(leaves(loop.arguments[place]))
        if op.target != loop.targets[place] or op in where or op in mine or len(given) != len(wanted):
            return False
        found[place] = op
        return all(match_leaf(*pair) for pair in zip(wanted, given, strict=True))

    def match_leaf(relation: Any, leaf: Any) -> bool:
        if not isinstance(relation, Same):
            return _fits(relation, leaf, -1, 0, {}, where)
        if relation.lag == 0:
            return match(relation.place, leaf)
        return isinstance(leaf, Op) and initial.setdefault((relation.place, 1), leaf) is leaf

    def before(leaf: Any) -> Any:
        """An argument in that iteration."""
        if isinstance(leaf, Same):
            return initial.get((leaf.place, 1), _NOTHING) if leaf.lag else found.get(leaf.place, _NOTHING)
        if isinstance(leaf, Counted):
            return leaf.start - leaf.step
        if isinstance(leaf, Element):
            return elements.get((leaf.loop, leaf.place, leaf.start - leaf.step), _NOTHING)
        return leaf

    if not all(match(place, op) for (place, _), op in loop.initial.items()):
        return
    elements = {places: op for op, places in where.items()}
    for place, (target, tree) in enumerate(zip(loop.targets, loop.arguments, strict=True)):
        if place not in found:
            op = graph.lookup(target, *map_tree(tree, before))
            if op is None or op in where or op in mine:
                return
            found[place] = op
    if any(isinstance(leaf, Op) and leaf in set(found.values()) for leaf in leaves(loop.arguments)):
        return
    loop.instances = [[found[place], *row] for place, row in enumerate(loop.instances)]
    loop.arguments = [map_tree(tree, lambda leaf: _moved(leaf, -1)) for tree in loop.arguments]
    loop.initial = initial


def _extend(loop: Loop, graph: Graph, where: Where) -> bool:
    """Take one more iteration at the end, of which the trace may lack what nothing reads."""
    count = loop.count
    mine = {op for row in loop.instances for op in row}
    elements = {places: op for op, places in where.items()}
    found: list[Op | None] = []
    steps = False
    for target, tree in zip(loop.targets, loop.arguments, strict=True):
        missing = False

        def actual(leaf: Any) -> Any:
            nonlocal missing
            result = leaf
            if isinstance(leaf, Same):
                before = count - leaf.lag
                result = loop.instances[leaf.place][before] if leaf.lag and before >= 0 else None
                if leaf.lag == 0 and leaf.place < len(found):
                    result = found[leaf.place]
            elif isinstance(leaf, Counted):
                result = leaf.step * count + leaf.start
            elif isinstance(leaf, Element):
                result = elements.get((leaf.loop, leaf.place, leaf.step * count + leaf.start))
            missing = missing or (result is None and leaf is not None)
            return result

        args, kwargs = map_tree(tree, actual)
        op = None if missing else graph.lookup(target, args, kwargs)
        if op is not None and (op in where or op in mine):
            return False
        own = list(leaves(tree))
        if op is None and any(isinstance(leaf, (Counted, Element)) for leaf in own):
            return False
        steps = steps or (op is not None and any(isinstance(leaf, Same) and leaf.lag for leaf in own))
        found.append(op)
    if not (steps or all(found)) or not any(found):
        return False
    if not any(isinstance(leaf, (Counted, Element)) for leaf in leaves(loop.arguments)) and not all(found):
        return False
    for row, op in zip(loop.instances, found, strict=True):
        row.append(op)
    return True
