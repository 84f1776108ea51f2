"""One loop in one run: its results, each computed when it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from exporters.capture.native_node import recurrent_node
from exporters.loops import vectorized
from exporters.loops.accesses import accessed, is_access_before, part_of, written
from exporters.loops.description import Affine, Iteration, Other
from exporters.loops.kinds import CELLS, Kind
from exporters.loops.loop_state import LoopState
from exporters.loops.operations import leaves, map_tree
from exporters.loops.refusal import NotRolledError
from exporters.loops.relations import Same
from exporters.loops.results import Results, rows_of
from exporters.loops.scan import StepBody
from exporters.loops.stacked import Stacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.nn.recurrent.cells import Cell
    from exporters.loops.description import Steps
    from exporters.loops.groups import Group
    from exporters.loops.plan import Plan
    from exporters.loops.run import Run


@dataclass
class Nodes:
    """What loops become, apart from plain operators."""

    cells: Mapping[tuple[int, int], tuple[str, nn.Module, Cell]]
    """Loop and operation -> suffix of the names of its buffers, where they are, and the cell."""
    bodies: list[StepBody] = field(default_factory=list)
    """Of the `Scan` nodes, in the order in which they were made."""


class LoopRun(LoopState):
    """A loop whose results can be read."""

    def __init__(self, run: Run, index: int, planned: Plan, loops: Sequence[LoopRun], nodes: Nodes) -> None:
        """Nothing is computed yet.

        Args:
            run: Computes what is outside the loops.
            index: Of the loop.
            planned: How it is computed.
            loops: All loops of the run.
            nodes: Prepared cells; bodies of `Scan` nodes are added.
        """
        super().__init__(run, planned)
        self._index, self._loops, self._nodes = index, loops, nodes
        self._sequences: dict[int, Results] = {}
        self._last: dict[int, Tensor] = {}
        self._done: set[int] = set()
        self._running: set[int] = set()

    # --- read from outside ---

    def at(self, place: int, index: Affine) -> Tensor:
        """The result of an operation in one iteration."""
        if self.planned.kinds[place] is Kind.WRITE:
            return written(self, place, self._operand(part_of(self, place)))
        self._compute(place)
        last = index == self.body.count.last
        if last and place in self._last:
            return self._last[place]
        results = self.sequence(place)
        if last and self.planned.padded and (place, 1) in self.body.initial:
            rows = torch.cat([self.initial(place, 1).unsqueeze(0), results.turned(False)])
            return rows.select(0, self.count)
        if self.planned.padded or (index.slope and not last):
            return results.turned(False).select(0, index.at(self.run.length))
        chosen = -1 if last else index.offset
        value: Tensor = results.value
        return value.select(0, -1 - chosen if results.backward else chosen)

    def rows(self, part: Steps) -> Tensor:
        """Results of an operation in some iterations, in the order of the list."""
        whole = part.count == self.body.count and not self.planned.padded
        results = self.sequence(part.place)
        value, first, count = results.value, part.first.at(self.run.length), part.count.at(self.run.length)
        if not whole:
            lowest = first if part.step == 1 else first - count + 1
            start = self.rows_count - lowest - count if results.backward else lowest
            value = value[start : start + count]
        return value if results.backward is (part.step == -1) else value.flip(0)  # type: ignore[no-any-return]

    def _elements(self, leaf: Other) -> Results:
        """Results of an operation of another loop, one for each iteration of this one."""
        other = self._loops[leaf.loop]
        results = other.sequence(leaf.place)
        start, count = leaf.start.at(self.run.length), self.count
        ahead = leaf.step > 0
        whole = (
            abs(leaf.step) == 1
            and not other.planned.padded
            and other.body.count == self.body.count
            and leaf.start == (Affine(0, 0) if ahead else self.body.count.last)
        )
        value = results.value
        if not whole:
            value = rows_of(results.turned(False), start, leaf.step, count)
            return self.padded(Results(value, not ahead))
        return self.padded(Results(value, results.backward is ahead))

    # --- sequences ---

    def sequence(self, place: int) -> Results:
        """Results of an operation in all iterations."""
        self._compute(place)
        return self._sequences[place]

    def _compute(self, place: int) -> None:
        if place in self._done:
            return
        if place in self._running:
            raise NotRolledError("what every step reads depends on the steps themselves")
        self._running.add(place)
        kind = self.planned.kinds[place]
        if kind is Kind.ACCESS:
            self._keep(place, accessed(self, place))
        elif kind is Kind.VECTOR:
            self._keep(place, self._vector(place))
        elif kind is Kind.CELL:
            self._cell(place)
        elif kind is Kind.SCAN:
            self._scan(self.planned.groups[place])
        else:
            raise NotRolledError("a tensor is read while a loop writes into it", "keep the results in a list")

    def _keep(self, place: int, results: Results) -> None:
        self._done.add(place)
        self._sequences[place] = results

    def _operand(self, leaf: Any) -> Any:
        """A sequence if an argument changes from iteration to iteration, else its value."""
        if isinstance(leaf, Same):
            return self.sequence(leaf.place) if leaf.lag == 0 else self._shifted(leaf.place, leaf.lag)
        if isinstance(leaf, Other):
            return self._elements(leaf)
        if isinstance(leaf, Iteration):
            numbers = torch.arange(self.rows_count)
            numbers = numbers if leaf.step == 1 else numbers * leaf.step
            start = leaf.start.at(self.run.length)
            return Results(numbers if leaf.start == Affine(0, 0) else numbers + start)
        return self.run.value(leaf)

    def _shifted(self, place: int, lag: int) -> Results:
        """The results some iterations earlier."""
        if self.planned.kinds[place] is Kind.ACCESS and all(
            is_access_before(self, place, k) for k in range(1, lag + 1)
        ):
            return accessed(self, place, lag)
        results = self.sequence(place)
        before = torch.stack([self.initial(place, k) for k in range(lag, 0, -1)])
        if lag == 1:
            kept = results.value[1:] if results.backward else results.value[: self.rows_count - 1]
            parts = [kept, before] if results.backward else [before, kept]
            return Results(torch.cat(parts), results.backward)
        return Results(torch.cat([before, results.turned(False)])[: self.rows_count])

    # --- kinds ---

    def _vector(self, place: int) -> Results:
        operands = map_tree(self.body.arguments[place], self._operand)
        stacks = [leaf for leaf in leaves(operands) if isinstance(leaf, Results)]
        backward = all(leaf.backward for leaf in stacks)

        def stack(leaf: Any) -> Any:
            if not isinstance(leaf, Results):
                return leaf
            if isinstance(leaf.value, tuple):
                return Stacked(leaf.value)
            return Stacked(leaf.turned(backward))

        args, kwargs = map_tree(operands, stack)
        results = vectorized.apply(self.body.targets[place], args, kwargs)
        if isinstance(results, (tuple, list)):
            results = tuple(results)
        return Results(results, backward)

    def _cell(self, place: int) -> None:
        body = self.body
        if body.targets[place] not in CELLS:  # h or c of an LSTM
            return self._cell(body.arguments[place][0][0].place)
        if place in self._done:
            return None
        suffix, owner, cell = self._nodes.cells[self._index, place]
        x = self._operand(body.arguments[place][0][0])
        states = [place]
        if len(cell.states) > 1:
            states = [leaf.place for leaf in body.arguments[place][0][1]]
        initial = [self.initial(state, 1).unsqueeze(0) for state in states]
        y, *last = recurrent_node(owner, suffix, cell.gates, x.turned(False), initial)
        self._done.update({place, *states})
        self._sequences[states[0]] = Results(y.squeeze(1))
        if not self.planned.padded:
            self._last.update({state: value.squeeze(0) for state, value in zip(states, last, strict=True)})
        return None

    def _scan(self, group: Group) -> None:
        run, bodies = self.run, self._nodes.bodies
        body = StepBody(run.module, run.program, self.body, group, run.time)
        steps = [self._operand(leaf) for leaf in group.steps]
        states = [self.initial(*state) for state in group.states]
        values = [self.body.values[place] for place in group.outputs]
        sizes = [[run.size(pair) for pair in zip(one.shape, other.shape, strict=True)] for one, other in values]
        invariants = [run.value(leaf) for leaf in body.invariants]
        last, sequences = body.node(len(bodies), states, steps, invariants, sizes)
        bodies.append(body)
        self._done.update(group.places)
        for (place, lag), value in zip(group.states, last, strict=True):
            if lag == 1 and not self.planned.padded:
                self._last[place] = value
        self._sequences.update(zip(group.outputs, sequences, strict=True))
