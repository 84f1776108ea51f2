"""One description of a model for sequences of any length, from its traces at two lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from exporters.loops.description import Affine, At, Body, Iteration, Node, Other, Program, Steps, through
from exporters.loops.find import find
from exporters.loops.operations import CONSTANT, INPUT, Op, leaves
from exporters.loops.refusal import NotRolledError
from exporters.loops.relations import Counted, Element, Loop, Where
from exporters.loops.step_items import StepItems, step_items

if TYPE_CHECKING:
    from exporters.loops.graph import Graph

_BY_LENGTH = "compute it from sizes of tensors with tensor operations"


def unify(short: Graph, long: Graph) -> Program:
    """What both traces have in common.

    Raises:
        NotRolledError: They differ in more than the number of iterations and integers that are affine in the length.
    """
    pairs, *where = find(short, long)
    return _Unifier((short, long), pairs, (where[0], where[1])).program()


class _Unifier:
    def __init__(self, graphs: tuple[Graph, Graph], pairs: list[tuple[Loop, Loop]], where: tuple[Where, Where]) -> None:
        self._graphs, self._pairs, self._where = graphs, pairs, where
        self._lengths = (graphs[0].length, graphs[1].length)
        self._known: dict[Op, tuple[Node, Op]] = {}

    def program(self) -> Program:
        if not self._pairs:
            raise NotRolledError("no part of it repeats in the same way at every step")
        nodes = []
        for one, other in zip(*(graph.inputs for graph in self._graphs), strict=True):
            nodes.append(self._remember(one, other, Node(INPUT, values=(one.value, other.value), name=one.name)))
        inputs = list(nodes)
        for pair in self._pairs:
            self._count(*pair, next(op for op in pair[0].instances[0] if op is not None))
        outside = [self._outside(side) for side in (0, 1)]
        for one, other in zip(*outside, strict=False):
            nodes.append(self._node(one, other))
        if len(outside[0]) != len(outside[1]):
            more = outside[0] if len(outside[0]) > len(outside[1]) else outside[1]
            raise self._differs(more[min(map(len, outside))])
        return Program(
            lengths=self._lengths,
            nodes=nodes,
            inputs=inputs,
            loops=[self._body(*pair) for pair in self._pairs],
            outputs=tuple(
                self._leaf(*leaf) for leaf in zip(*(leaves(graph.outputs) for graph in self._graphs), strict=True)
            ),
            constants={**self._graphs[0].constants, **self._graphs[1].constants},
        )

    # --- what is needed ---

    def _outside(self, side: int) -> list[Op]:
        """Operations that the outputs depend on and that are in no loop, in order; constants first."""
        graph, where = self._graphs[side], self._where[side]
        seen: set[Op] = set()
        loops: set[int] = set()
        waiting = [leaf for leaf in leaves(graph.outputs) if isinstance(leaf, Op)]

        def need(index: int) -> None:
            if index not in loops:
                loops.add(index)
                loop = self._pairs[index][side]
                for leaf in leaves([loop.arguments, list(loop.initial.values())]):
                    if isinstance(leaf, Op):
                        waiting.append(leaf)
                    elif isinstance(leaf, Element):
                        need(leaf.loop)

        while waiting:
            op = waiting.pop()
            if op in where:
                need(where[op][0])
            elif op not in seen:
                seen.add(op)
                waiting += [leaf for leaf in leaves((op.args, op.kwargs)) if isinstance(leaf, Op)]
        constants = sorted((op for op in seen if op.target == CONSTANT), key=lambda op: op.name)
        return constants + [op for op in graph.ops if op in seen]

    def _remember(self, one: Op, other: Op, node: Node) -> Node:
        self._known[one] = node, other
        return node

    # --- one from two ---

    def _node(self, one: Op, other: Op) -> Node:
        if one.target != other.target or one.name != other.name:
            raise self._differs(one)
        args, kwargs = self._tree((one.args, one.kwargs), (other.args, other.kwargs), one)
        return self._remember(one, other, Node(one.target, args, kwargs, (one.value, other.value), one.name, one.code))

    def _tree(self, one: Any, other: Any, place: Op) -> Any:
        if isinstance(one, tuple) and isinstance(other, tuple):
            if any(isinstance(leaf, Op) and leaf in self._where[0] for leaf in one):
                return self._list(one, other, place)
            if len(one) != len(other):
                raise self._differs(place)
            return tuple(self._tree(a, b, place) for a, b in zip(one, other, strict=True))
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            return {key: self._tree(part, other[key], place) for key, part in one.items()}
        return self._leaf(one, other, place)

    def _list(self, one: Any, other: Any, place: Op) -> Any:
        """Items of a list; those of a loop that follow each other are one."""
        parts = [step_items(items, where) for items, where in zip((one, other), self._where, strict=True)]
        if len(parts[0]) != len(parts[1]):
            raise self._differs(place)
        items: list[Any] = []
        for a, b in zip(*parts, strict=True):
            if isinstance(a, StepItems) and isinstance(b, StepItems):
                if (a.loop, a.place) != (b.loop, b.place) or (a.count > 1 and b.count > 1 and a.step != b.step):
                    raise self._differs(place)
                step = b.step if b.count > 1 else a.step
                if a.count == b.count == 1:
                    items.append(At(a.loop, a.place, self._affine(a.first, b.first, place)))
                else:
                    first, count = self._affine(a.first, b.first, place), self._affine(a.count, b.count, place)
                    items.append(Steps(a.loop, a.place, first, count, step))
            elif isinstance(a, StepItems) or isinstance(b, StepItems):
                raise self._differs(place)
            else:
                items.append(self._tree(a, b, place))
        return tuple(items)

    def _leaf(self, a: Any, b: Any, place: Op | None = None) -> Any:
        if isinstance(a, Op) and isinstance(b, Op):
            return self._result(a, b, place)
        if type(a) is not type(b):
            raise self._differs(place)
        if isinstance(a, Counted) and a.step == b.step:
            return Iteration(a.step, self._affine(a.start, b.start, place))
        if isinstance(a, Element) and (a.loop, a.place, a.step) == (b.loop, b.place, b.step):
            return Other(a.loop, a.place, a.step, self._affine(a.start, b.start, place))
        if repr(a) == repr(b):
            return a
        if type(a) is int:
            return self._affine(a, b, place)
        if isinstance(a, float):
            raise NotRolledError(
                f"a number is computed from the length in Python{_at(place)}: {a:g} at length {self._lengths[0]} and "
                f"{b:g} at {self._lengths[1]}",
                _BY_LENGTH,
            )
        raise self._differs(place)

    def _result(self, a: Op, b: Op, place: Op | None) -> Any:
        one, other = (where.get(op) for where, op in zip(self._where, (a, b), strict=True))
        if one is not None and other is not None:
            if one[:2] != other[:2]:
                raise self._differs(a)
            return At(*one[:2], self._affine(one[2], other[2], place))
        node, beside = self._known.get(a, (None, None))
        if node is None or beside is not b:
            raise self._differs(a)
        return node

    def _affine(self, a: int, b: int, place: Op | None) -> Affine:
        """The function of the length through both points."""
        function = through(self._lengths, a, b)
        if function is None:
            raise NotRolledError(
                f"an integer{_at(place)} is {a} at length {self._lengths[0]} and {b} at length "
                f"{self._lengths[1]}, which is not a multiple of the length plus a constant",
                _BY_LENGTH,
            )
        return function

    def _body(self, one: Loop, other: Loop) -> Body:
        places = [next(op for op in row if op is not None) for row in one.instances]
        if one.initial.keys() != other.initial.keys():
            raise self._differs(places[0])
        return Body(
            count=self._count(one, other, places[0]),
            targets=one.targets,
            arguments=[
                self._tree(a, b, place) for a, b, place in zip(one.arguments, other.arguments, places, strict=True)
            ],
            values=[(_second(a).value, _second(b).value) for a, b in zip(one.instances, other.instances, strict=True)],
            growing=[_grows(row) for row in one.instances],
            codes=[op.code for op in places],
            initial={key: self._leaf(leaf, other.initial[key], places[0]) for key, leaf in one.initial.items()},
        )

    def _count(self, one: Loop, other: Loop, place: Op) -> Affine:
        try:
            return self._affine(one.count, other.count, place)
        except NotRolledError as error:
            raise NotRolledError(
                f"a loop{_at(place)} makes {one.count} equal steps at length {self._lengths[0]} and {other.count} at "
                f"length {self._lengths[1]}, which is not a multiple of the length plus a constant"
            ) from error

    def _differs(self, op: Op | None) -> NotRolledError:
        return NotRolledError(
            f"its traces at lengths {self._lengths[0]} and {self._lengths[1]} differ in more than the number of equal "
            f"iterations{_at(op)}"
        )


def _second(row: list[Op | None]) -> Op:
    """An operation in the second iteration, which is no first or last one with sizes of its own."""
    op = row[1]
    assert op is not None
    return op


def _grows(row: list[Op | None]) -> bool:
    shapes = [tuple(map(str, op.value.shape)) for op in row[1:] if op is not None and isinstance(op.value, Tensor)]
    return len(set(shapes)) > 1


def _at(op: Op | None) -> str:
    return f" at `{op.code}`" if op is not None and op.code else ""
