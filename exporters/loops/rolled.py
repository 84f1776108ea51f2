"""A module that computes what a model with loops does, at any length, and that can be traced at an open one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from exporters.capture.native_node import prepare_node, recurrent_node
from exporters.loops import scan, vectorized
from exporters.loops.find import NotRolledError, Same
from exporters.loops.graph import CONSTANT, leaves, map_tree
from exporters.loops.plan import CELLS, Kind, Plan, plan, slice_width
from exporters.loops.unify import Affine, At, Iteration, Node, Other, Steps, through

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.recurrent.cells import Cell
    from exporters.loops.plan import Group
    from exporters.loops.unify import Program

    Axes = Mapping[str, Mapping[int, str]]

_OPS = torch.ops.aten
_JOINS = (_OPS.cat.default, _OPS.stack.default)


@dataclass(frozen=True)
class Results:
    """Of all iterations (N, ...), the last one first where `backward`; several of an operator that gives several."""

    value: Any
    backward: bool = False

    def turned(self, backward: bool) -> Tensor:
        """In that order."""
        value: Tensor = self.value
        return value if self.backward is backward else value.flip(0)


class _Made:
    """What a run makes; in an object of its own, since a tracer puts the attributes of a module back."""

    def __init__(self) -> None:
        self.bodies: list[scan.StepBody] = []


class Rolled(nn.Module):
    """A model whose loops are loops again; it keeps the model's layers under their names."""

    def __init__(self, model: nn.Module, program: Program, axes: Axes, min_length: int) -> None:
        """Plan all loops.

        Args:
            model: Has the weights; layers that become native nodes get buffers.
            program: What it computes.
            axes: Input name -> {axis: name}, in the order of the inputs.
            min_length: Shortest length of a sequence.

        Raises:
            NotRolledError: A loop does what cannot be written for any length.
        """
        super().__init__()
        adopt(self, model)
        self._program = program
        self._names = _constant_names(self, program)
        self._times = [
            (place, axis) for place, words in enumerate(axes.values()) for axis, word in words.items() if word == "time"
        ]
        self._plans = plan(program, min_length)
        self._cells = {
            (index, place): self._prepare_cell(planned, place, index)
            for index, planned in enumerate(self._plans)
            for place, kind in enumerate(planned.kinds)
            if kind is Kind.CELL and planned.body.targets[place] in CELLS
        }
        self._made = _Made()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the model gives."""
        self._made.bodies.clear()
        return _Run(self, inputs).outputs()

    @property
    def bodies(self) -> list[scan.StepBody]:
        """Of all `Scan` nodes, once `forward` was traced."""
        return self._made.bodies

    def constant(self, node: Node) -> Tensor:
        """The value of a constant."""
        found = attribute(self, self._names[node.name])
        assert isinstance(found, Tensor)
        return found

    def _prepare_cell(self, planned: Plan, place: int, index: int) -> tuple[str, nn.Module, Cell]:
        """Weights of a cell as its node wants them: suffix of the names of the buffers, and where they are."""
        cell = CELLS[planned.body.targets[place]]
        _, _, *weights = planned.body.arguments[place][0]
        parameters = zip((parameter.name for parameter in cell.parameters), weights, strict=False)
        values = {name: self._value(node) for name, node in parameters if node is not None}
        names = [node.name for node in weights[:2]]
        owners = {self._names.get(name, "").rpartition(".")[0] for name in names}
        named = len(owners) == 1 and all(node.target == CONSTANT for node in weights[:2])
        owner = self.get_submodule(owners.pop()) if named else self
        suffix = "cell" if named else f"cell_{index}_{place}"
        prepare_node(owner, suffix, cell.gates, [values])
        return suffix, owner, cell

    def _value(self, node: Node) -> Tensor:
        """The numbers of what depends on constants alone."""
        if node.target == CONSTANT:
            return self.constant(node).detach()
        args, kwargs = map_tree(
            (node.args, node.kwargs), lambda leaf: self._value(leaf) if isinstance(leaf, Node) else leaf
        )
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[no-any-return]


def adopt(module: nn.Module, model: nn.Module) -> None:
    """Give a module the parts of another one, under the same names."""
    for name, child in model.named_children():
        module.add_module(name, child)
    for name, parameter in model.named_parameters(recurse=False):
        module.register_parameter(name, parameter)
    for name, buffer in model.named_buffers(recurse=False):
        module.register_buffer(name, buffer)


def attribute(module: nn.Module, name: str) -> object:
    """What a module has under a dotted name, or None."""
    *path, last = name.split(".")
    for part in path:
        inner = getattr(module, part, None)
        if not isinstance(inner, nn.Module):
            return None
        module = inner
    return getattr(module, last, None)


def _constant_names(module: nn.Module, program: Program) -> dict[str, str]:
    """Name of a constant -> name in the module, which gets those that the model does not have."""
    found = {}
    for name, tensor in program.constants.items():
        if isinstance(attribute(module, name), Tensor):
            found[name] = name
        else:
            found[name] = name.replace(".", "_")
            module.register_buffer(found[name], tensor)
    return found


# --- one run ---


class _Run:
    """Computes the outputs for some inputs; numbers may be symbols of the tracer."""

    def __init__(self, rolled: Rolled, inputs: Sequence[Tensor]) -> None:
        self.rolled, self.program = rolled, rolled._program
        self.inputs = inputs
        first, *more = rolled._times
        self.length: Any = inputs[first[0]].shape[first[1]]
        for place, axis in more:
            torch._check(inputs[place].shape[axis] == self.length)
        self.known: dict[Node, Any] = dict(zip(self.program.inputs, inputs, strict=True))
        self.loops = [LoopRun(self, index, planned) for index, planned in enumerate(rolled._plans)]

    def outputs(self) -> tuple[Tensor, ...]:
        for node in self.program.nodes:  # in order, so that nothing is deep
            self.value(node)
        return tuple(self.value(leaf) for leaf in self.program.outputs)

    def value(self, leaf: Any) -> Any:
        """The value of a leaf outside all loops."""
        if isinstance(leaf, Affine):
            return leaf.at(self.length)
        if isinstance(leaf, At):
            return self.loops[leaf.loop].at(leaf.place, leaf.index)
        if not isinstance(leaf, Node):
            return leaf
        if leaf not in self.known:
            self.known[leaf] = self._computed(leaf)
        return self.known[leaf]

    def _computed(self, node: Node) -> Any:
        if node.target == CONSTANT:
            return self.rolled.constant(node)
        if node.args and isinstance(node.args[0], tuple) and any(isinstance(part, Steps) for part in node.args[0]):
            return self._joined(node)
        args, kwargs = self._resolved(node)
        return node.target(*args, **kwargs)

    def _resolved(self, node: Node) -> Any:
        def change(leaf: Any) -> Any:
            if isinstance(leaf, Steps):
                raise NotRolledError(
                    f"what is computed at `{node.code}` takes the results of all steps as a list",
                    "give it `torch.stack(...)` of them",
                )
            return self.value(leaf)

        return map_tree((node.args, node.kwargs), change)

    def _joined(self, node: Node) -> Tensor:
        """`torch.stack` or `torch.cat` of lists in which steps of a loop stand."""
        if node.target not in _JOINS:
            self._resolved(node)  # which refuses
        parts, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
        result = node.values[0]
        axis %= result.dim()
        found = []
        for part in parts:
            if isinstance(part, Steps):
                rows = self.loops[part.loop].rows(part)
                found.append(scan.stacked(rows, axis) if node.target is _OPS.stack.default else scan.joined(rows, axis))
            else:
                value = self.value(part)
                found.append(value.unsqueeze(axis) if node.target is _OPS.stack.default else value)
        return found[0] if len(found) == 1 else torch.cat(found, axis)

    def size(self, sizes: tuple[Any, Any]) -> Any:
        """A size, from those at both lengths."""
        one, other = sizes
        if isinstance(one, int) and isinstance(other, int):
            found = through(self.program.lengths, one, other)
            if found is not None:
                return found.at(self.length)
        for node, tensor in zip(self.program.inputs, self.inputs, strict=True):
            for axis, size in enumerate(node.values[0].shape):
                if not isinstance(size, int) and str(size) == str(one):
                    return tensor.shape[axis]
        raise NotRolledError(f"a state has the size {one}, which is no axis of an input")


class LoopRun:
    """One loop in one run."""

    def __init__(self, run: _Run, index: int, planned: Plan) -> None:
        """Nothing is computed yet."""
        self.run, self.index, self.planned, self.body = run, index, planned, planned.body
        self._sequences: dict[int, Results] = {}
        self._last: dict[int, Tensor] = {}
        self._done: set[int] = set()
        self._running: set[int] = set()

    # --- read from outside ---

    @property
    def count(self) -> Any:
        """Number of iterations."""
        return self.body.count.at(self.run.length)

    @property
    def rows_count(self) -> Any:
        """Number of rows in a sequence."""
        return self.count + 1 if self.planned.padded else self.count

    def at(self, place: int, index: Affine) -> Tensor:
        """The result of an operation in one iteration."""
        if self.planned.kinds[place] is Kind.WRITE:
            return self._written(place)
        self._compute(place)
        last = index == _last_of(self.body.count)
        if last and place in self._last:
            return self._last[place]
        found = self.sequence(place)
        if last and self.planned.padded and (place, 1) in self.body.initial:
            rows = torch.cat([self.initial(place, 1).unsqueeze(0), found.turned(False)])
            return rows.select(0, self.count)
        if self.planned.padded or (index.slope and not last):
            return found.turned(False).select(0, index.at(self.run.length))
        chosen = -1 if last else index.offset
        value: Tensor = found.value
        return value.select(0, -1 - chosen if found.backward else chosen)

    def rows(self, part: Steps) -> Tensor:
        """Results of an operation in some iterations, in the order of the list."""
        whole = part.count == self.body.count and not self.planned.padded
        found = self.sequence(part.place)
        value, first, count = found.value, part.first.at(self.run.length), part.count.at(self.run.length)
        if not whole:
            lowest = first if part.step == 1 else first - count + 1
            start = self.rows_count - lowest - count if found.backward else lowest
            value = value[start : start + count]
        return value if found.backward is (part.step == -1) else value.flip(0)  # type: ignore[no-any-return]

    def elements(self, leaf: Other) -> Results:
        """Results of an operation of another loop, one for each iteration of this one."""
        other = self.run.loops[leaf.loop]
        found = other.sequence(leaf.place)
        start, count = leaf.start.at(self.run.length), self.count
        ahead = leaf.step > 0
        whole = (
            abs(leaf.step) == 1
            and not other.planned.padded
            and other.body.count == self.body.count
            and leaf.start == (Affine(0, 0) if ahead else _last_of(self.body.count))
        )
        value = found.value
        if not whole:
            value = _part(found.turned(False), start, leaf.step, count)
            return self._padded(Results(value, not ahead))
        return self._padded(Results(value, found.backward is ahead))

    # --- sequences ---

    def sequence(self, place: int) -> Results:
        """Results of an operation in all iterations."""
        self._compute(place)
        return self._sequences[place]

    def initial(self, place: int, lag: int) -> Tensor:
        """What stands for an operation before the first iteration, as large as its results."""
        value = self.run.value(self.body.initial[place, lag])
        wanted = self.body.values[place]
        sizes = [self.run.size(pair) for pair in zip(wanted[0].shape, wanted[1].shape, strict=True)]
        value = value.to(wanted[0].dtype) if value.dtype != wanted[0].dtype else value
        given = self.body.initial[place, lag]
        shape = given.values[0].shape if isinstance(given, Node) else value.shape
        same = [str(size) for size in shape] == [str(size) for size in wanted[0].shape]
        return value if same or isinstance(given, At) else value.expand(sizes)  # type: ignore[no-any-return]

    def _compute(self, place: int) -> None:
        if place in self._done:
            return
        if place in self._running:
            raise NotRolledError("what every step reads depends on the steps themselves")
        self._running.add(place)
        kind = self.planned.kinds[place]
        if kind is Kind.ACCESS:
            self._keep(place, self._accessed(place, 0))
        elif kind is Kind.VECTOR:
            self._keep(place, self._vector(place))
        elif kind is Kind.CELL:
            self._cell(place)
        elif kind is Kind.SCAN:
            self._scan(self.planned.groups[place])
        else:
            raise NotRolledError("a tensor is read while a loop writes into it", "keep the results in a list")

    def _keep(self, place: int, found: Results) -> None:
        self._done.add(place)
        self._sequences[place] = found

    def operand(self, leaf: Any) -> Any:
        """A sequence where an argument changes from iteration to iteration, and its value where it does not."""
        if isinstance(leaf, Same):
            return self.sequence(leaf.place) if leaf.lag == 0 else self._shifted(leaf.place, leaf.lag)
        if isinstance(leaf, Other):
            return self.elements(leaf)
        if isinstance(leaf, Iteration):
            numbers = torch.arange(self.rows_count)
            numbers = numbers if leaf.step == 1 else numbers * leaf.step
            start = leaf.start.at(self.run.length)
            return Results(numbers if leaf.start == Affine(0, 0) else numbers + start)
        return self.run.value(leaf)

    def _shifted(self, place: int, lag: int) -> Results:
        """The results some iterations earlier."""
        if self.planned.kinds[place] is Kind.ACCESS and all(
            self._is_access_before(place, k) for k in range(1, lag + 1)
        ):
            return self._accessed(place, lag)
        found = self.sequence(place)
        before = torch.stack([self.initial(place, k) for k in range(lag, 0, -1)])
        if lag == 1:
            kept = found.value[1:] if found.backward else found.value[: self.rows_count - 1]
            parts = [kept, before] if found.backward else [before, kept]
            return Results(torch.cat(parts), found.backward)
        return Results(torch.cat([before, found.turned(False)])[: self.rows_count])

    def _is_access_before(self, place: int, lag: int) -> bool:
        """Whether what stands for an access before the first iteration is the same access there."""
        given = self.body.initial.get((place, lag))
        if not isinstance(given, Node) or given.target is not self.body.targets[place]:
            return False
        wanted, _ = self.body.arguments[place]
        return len(given.args) == len(wanted) and all(
            (
                a == _plain(Affine(b.start.slope, b.start.offset - b.step * lag))
                if isinstance(b, Iteration)
                else a is b or a == b
            )
            for a, b in zip(given.args, wanted, strict=True)
        )

    def _accessed(self, place: int, lag: int) -> Results:
        """Steps of a tensor, `lag` iterations late."""
        args = self.body.arguments[place][0]
        source, axis, index = args[0], args[1], args[2]
        x = self.run.value(source)
        rank = x.dim()
        width = 1 if self.body.targets[place] is _OPS.select.int else slice_width(args)
        assert width is not None
        x = scan.first(x, axis % rank)
        whole = (
            width == 1
            and abs(index.step) == 1
            and lag == 0
            and index.start == (Affine(0, 0) if index.step > 0 else _last_of(self.body.count))
            and self._covers(source, axis)
        )
        start = index.start.at(self.run.length) - index.step * lag
        pieces = [x if whole else _part(x, start + j, index.step, self.count) for j in range(width)]
        if self.body.targets[place] is not _OPS.select.int:
            pieces = [torch.stack(pieces, axis % rank + 1) if width > 1 else pieces[0].unsqueeze(axis % rank + 1)]
        return self._padded(Results(pieces[0], index.step < 0))

    def _covers(self, source: Any, axis: int) -> bool:
        """Whether there are as many iterations as steps in a tensor."""
        if isinstance(source, At):
            values: Any = self.run.program.loops[source.loop].values[source.place]
        else:
            values = source.values
        return [value.shape[axis] for value in values] == [self.body.count.at(t) for t in self.run.program.lengths]

    def _padded(self, found: Results) -> Results:
        """One more row, of zeros, where there may be no iteration."""
        if not self.planned.padded:
            return found
        sides = (1, 0) if found.backward else (0, 1)
        return Results(nn.functional.pad(found.value, (0, 0) * (found.value.dim() - 1) + sides), found.backward)

    # --- kinds ---

    def _vector(self, place: int) -> Results:
        operands = map_tree(self.body.arguments[place], self.operand)
        given = [leaf for leaf in leaves(operands) if isinstance(leaf, Results)]
        backward = all(leaf.backward for leaf in given)

        def stack(leaf: Any) -> Any:
            if not isinstance(leaf, Results):
                return leaf
            if isinstance(leaf.value, tuple):
                return vectorized.Stacked(leaf.value)
            return vectorized.Stacked(leaf.turned(backward))

        args, kwargs = map_tree(operands, stack)
        found = vectorized.apply(self.body.targets[place], args, kwargs)
        if isinstance(found, (tuple, list)):
            found = tuple(found)
        return Results(found, backward)

    def _written(self, place: int) -> Tensor:
        """The tensor into which a loop wrote a part at every step."""
        args = self.body.arguments[place][0]
        if self.body.targets[place] is _OPS.cat.default:
            return self._appended(place)
        axis, index = args[2], args[3]
        rows = self.operand(args[1])
        rows = rows.turned(index.step < 0)
        count = self.count
        if self.planned.padded:
            rows = rows[1:] if index.step < 0 else rows[:count]
        one = self.body.targets[place] is _OPS.select_scatter.default
        written = scan.stacked(rows, axis) if one else scan.joined(rows, axis)
        base = self.body.initial[place, 1]
        lowest = index.start if index.step > 0 else _plus(index.start, _plus(self.body.count, Affine(0, -1)), -1)
        if lowest == Affine(0, 0) and self._covers(base, axis):
            return written
        x = scan.first(self.run.value(base), axis)
        start = lowest.at(self.run.length)
        parts = [scan.stacked(x[:start], axis), written, scan.stacked(x[start + count :], axis)]
        return torch.cat(parts, axis)

    def _appended(self, place: int) -> Tensor:
        """The tensor to which a loop joined a part at every step, behind it or in front of it."""
        parts, *axes = self.body.arguments[place][0]
        behind = parts[0] == Same(place, 1)
        rows = self.operand(parts[behind]).turned(not behind)
        if self.planned.padded:
            rows = rows[: self.count] if behind else rows[1:]
        axis = (axes[0] if axes else 0) % (rows.dim() - 1)
        both = [self.run.value(self.body.initial[place, 1]), scan.joined(rows, axis)]
        return torch.cat(both if behind else both[::-1], axis)

    def _cell(self, place: int) -> None:
        body = self.body
        if body.targets[place] not in CELLS:  # h or c of an LSTM
            return self._cell(body.arguments[place][0][0].place)
        if place in self._done:
            return None
        suffix, owner, cell = self.run.rolled._cells[self.index, place]
        x = self.operand(body.arguments[place][0][0])
        states = [place]
        if len(cell.states) > 1:
            states = [leaf.place for leaf in body.arguments[place][0][1]]
        given = [self.initial(state, 1).unsqueeze(0) for state in states]
        y, *last = recurrent_node(owner, suffix, cell.gates, x.turned(False), given)
        self._done.update({place, *states})
        self._sequences[states[0]] = Results(y.squeeze(1))
        if not self.planned.padded:
            self._last.update({state: value.squeeze(0) for state, value in zip(states, last, strict=True)})
        return None

    def _scan(self, group: Group) -> None:
        body = scan.StepBody(self, group)
        steps = [self.operand(leaf) for leaf in group.steps]
        states = [self.initial(*state) for state in group.states]
        last, sequences = body.node(len(self.run.rolled.bodies), states, steps)
        self.run.rolled.bodies.append(body)
        self._done.update(group.places)
        for (place, lag), value in zip(group.states, last, strict=True):
            if lag == 1 and not self.planned.padded:
                self._last[place] = value
        for place, found in zip(group.outputs, sequences, strict=True):
            self._sequences[place] = found


def _last_of(count: Affine) -> Affine:
    return Affine(count.slope, count.offset - 1)


def _plus(one: Affine, other: Affine, factor: int = 1) -> Affine:
    return Affine(one.slope + factor * other.slope, one.offset + factor * other.offset)


def _plain(affine: Affine) -> Any:
    return affine.offset if affine.slope == 0 else affine


def _part(x: Tensor, start: Any, step: int, count: Any) -> Tensor:
    """Rows start, start + step, ... of x, `count` of them, with the lowest one first."""
    lowest = start if step > 0 else start + step * (count - 1)
    if abs(step) == 1:
        return x[lowest : lowest + count]
    return x[lowest : lowest + abs(step) * (count - 1) + 1 : abs(step)]
