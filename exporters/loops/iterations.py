"""The iterations of one loop, from a run of operations that repeat with a period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporters.loops.boundaries import extend, extend_back
from exporters.loops.operations import Op, leaves, map_tree
from exporters.loops.relations import Loop, Same, Where, fits, moved, relation
from exporters.loops.repetitions import REPEATS

if TYPE_CHECKING:
    from exporters.loops.graph import Graph


def build(graph: Graph, ops: list[Op], period: int, where: Where, index: int) -> Loop | None:
    """The loop whose iterations these operations are, or None if they do not fit together."""
    rows = [ops[first : first + period] for first in range(0, len(ops) - period + 1, period)]
    while rows and any(op in where for op in rows[0]):  # another loop ends with the same operations
        del rows[0]
    count = len(rows)
    if count < REPEATS or any(op in where for row in rows for op in row):
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
    places = {op: (place, i) for place, row in enumerate(table) for i, op in enumerate(row)}
    arguments = [relation(row[pair], row[pair + 1], pair, places, where) for row in table]
    if None in arguments:
        return None
    for first in range(pair + 1):
        initial = _fitting(table, arguments, first, pair + 2, places, where)
        if initial is not None:
            break
    else:
        return None
    last = pair + 2
    while last < count and _fitting(table, arguments, first, last + 1, places, where) is not None:
        last += 1
    counted = [map_tree(tree, lambda leaf: moved(leaf, first)) for tree in arguments]
    instances: list[list[Op | None]] = [[*row[first:last]] for row in table]
    loop = Loop(index, [row[first].target for row in table], counted, instances, initial or {})
    extend_back(loop, graph, where)
    while extend(loop, graph, where):
        pass
    return loop if loop.count >= REPEATS else None


def _fitting(
    table: list[list[Op]], arguments: list[Any], first: int, last: int, places: dict[Op, tuple[int, int]], where: Where
) -> dict[tuple[int, int], Any] | None:
    """What stands for the iterations before `first`, where all from there to `last` fit; else None."""
    initial: dict[tuple[int, int], Any] = {}
    for place, row in enumerate(table):
        wanted = list(leaves(arguments[place]))
        for i in range(first, last):
            actual = list(leaves((row[i].args, row[i].kwargs)))
            if len(actual) != len(wanted):
                return None
            for known, leaf in zip(wanted, actual, strict=True):
                if isinstance(known, Same) and i - known.lag < first:
                    key = (known.place, first - i + known.lag)
                    inside = isinstance(leaf, Op) and leaf in places and places[leaf][1] >= first
                    if not isinstance(leaf, Op) or inside or initial.setdefault(key, leaf) is not leaf:
                        return None
                elif not fits(known, leaf, i, first, places, where):
                    return None
    return initial
