"""Iterations at the start and the end of a loop, whose operations stand in another order or are not all there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from exporters.loops.operations import Op, leaves, map_tree
from exporters.loops.relations import UNRELATED, Counted, Element, Loop, Same, Where, fits, moved

if TYPE_CHECKING:
    from exporters.loops.graph import Graph


def extend_back(loop: Loop, graph: Graph, where: Where) -> None:
    """Take an iteration in front whose operations stand among others, such as a first one that makes its own state."""
    if all(lag == 1 for _, lag in loop.initial):
        _Front(loop, graph, where).take()


class _Front:
    """The operations of an iteration before the first one."""

    def __init__(self, loop: Loop, graph: Graph, where: Where) -> None:
        self._loop, self._graph, self._where = loop, graph, where
        self._inside = {op for row in loop.instances for op in row}
        self._elements = {places: op for op, places in where.items()}
        self._ops: dict[int, Op] = {}
        self._initial: dict[tuple[int, int], Any] = {}

    def take(self) -> None:
        """Add the iteration to the loop if all its operations are in the trace."""
        loop, ops = self._loop, self._ops
        if not all(self._match(place, op) for (place, _), op in loop.initial.items()):
            return
        for place, (target, tree) in enumerate(zip(loop.targets, loop.arguments, strict=True)):
            if place not in ops:
                op = self._graph.lookup(target, *map_tree(tree, self._argument))
                if op is None or self._is_taken(op):
                    return
                ops[place] = op
        if any(isinstance(leaf, Op) and leaf in set(ops.values()) for leaf in leaves(loop.arguments)):
            return
        loop.instances = [[ops[place], *row] for place, row in enumerate(loop.instances)]
        loop.arguments = [map_tree(tree, lambda leaf: moved(leaf, -1)) for tree in loop.arguments]
        loop.initial = self._initial

    def _match(self, place: int, op: Any) -> bool:
        """Whether an operation, and those that it depends on, are the loop's."""
        if place in self._ops or not isinstance(op, Op):
            return self._ops.get(place) is op
        actual, wanted = list(leaves((op.args, op.kwargs))), list(leaves(self._loop.arguments[place]))
        if op.target != self._loop.targets[place] or self._is_taken(op) or len(actual) != len(wanted):
            return False
        self._ops[place] = op
        return all(self._match_leaf(*pair) for pair in zip(wanted, actual, strict=True))

    def _match_leaf(self, relation: Any, leaf: Any) -> bool:
        if not isinstance(relation, Same):
            return fits(relation, leaf, -1, 0, {}, self._where)
        if relation.lag == 0:
            return self._match(relation.place, leaf)
        return isinstance(leaf, Op) and self._initial.setdefault((relation.place, 1), leaf) is leaf

    def _argument(self, leaf: Any) -> Any:
        """An argument in that iteration."""
        if isinstance(leaf, Same):
            return self._initial.get((leaf.place, 1), UNRELATED) if leaf.lag else self._ops.get(leaf.place, UNRELATED)
        if isinstance(leaf, Counted):
            return leaf.start - leaf.step
        if isinstance(leaf, Element):
            return self._elements.get((leaf.loop, leaf.place, leaf.start - leaf.step), UNRELATED)
        return leaf

    def _is_taken(self, op: Op) -> bool:
        return op in self._where or op in self._inside


def extend(loop: Loop, graph: Graph, where: Where) -> bool:
    """Take one more iteration at the end, of which the trace may lack what nothing reads."""
    inside = {op for row in loop.instances for op in row}
    elements = {places: op for op, places in where.items()}
    results: list[Op | None] = []
    feeds = False  # something reads an earlier iteration
    for target, tree in zip(loop.targets, loop.arguments, strict=True):
        arguments = list(leaves(tree))
        actual = {leaf: _next(leaf, loop, results, elements) for leaf in arguments if isinstance(leaf, _RELATIONS)}
        op = None if None in actual.values() else graph.lookup(target, *map_tree(tree, partial(_of, actual)))
        if op is not None and (op in where or op in inside):
            return False
        if op is None and any(isinstance(leaf, (Counted, Element)) for leaf in arguments):
            return False
        feeds = feeds or (op is not None and any(isinstance(leaf, Same) and leaf.lag for leaf in arguments))
        results.append(op)
    if not (feeds or all(results)) or not any(results):
        return False
    if not any(isinstance(leaf, (Counted, Element)) for leaf in leaves(loop.arguments)) and not all(results):
        return False
    for row, op in zip(loop.instances, results, strict=True):
        row.append(op)
    return True


_RELATIONS = (Same, Counted, Element)


def _of(actual: dict[Any, Any], leaf: Any) -> Any:
    return actual[leaf] if isinstance(leaf, _RELATIONS) else leaf


def _next(leaf: Same | Counted | Element, loop: Loop, results: list[Op | None], elements: dict[Any, Op]) -> Any:
    """An argument in the iteration after the last one, or None if the trace lacks it."""
    if isinstance(leaf, Counted):
        return leaf.step * loop.count + leaf.start
    if isinstance(leaf, Element):
        return elements.get((leaf.loop, leaf.place, leaf.step * loop.count + leaf.start))
    if leaf.lag == 0:
        return results[leaf.place] if leaf.place < len(results) else None
    before = loop.count - leaf.lag
    return loop.instances[leaf.place][before] if before >= 0 else None
