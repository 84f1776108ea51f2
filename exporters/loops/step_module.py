"""One iteration of a loop as a module that can be traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from exporters.loops.description import Affine, At, Iteration, Node, Other, is_constant, size_hint
from exporters.loops.operations import CONSTANT, map_tree
from exporters.loops.relations import Same
from exporters.loops.weights import Adopting

if TYPE_CHECKING:
    from exporters.loops.scan import StepBody

_SELECT = torch.ops.aten.select.int


class StepModule(Adopting):
    """States, steps and invariants in, new states and results out."""

    def __init__(self, step: StepBody) -> None:
        """Of a part of a loop's body."""
        super().__init__(step.model, step.program.constants)
        self._step = (step,)  # in a tuple: the model is no part of this module
        self.inputs: list[Tensor] = []
        """An example."""
        self.axes: dict[str, dict[int, str]] = {}
        """Name of an input -> its open axes."""
        values = [step.body.values[place] for place, _ in step.group.states]
        values += [self._step_values(leaf) for leaf in step.group.steps]
        values += [
            step.program.loops[leaf.loop].values[leaf.place] if isinstance(leaf, At) else leaf.values
            for leaf in step.invariants
        ]
        for number, (one, other) in enumerate(values):
            self.inputs.append(torch.zeros([size_hint(size) for size in one.shape], dtype=one.dtype))
            self.axes[f"input_{number}"] = {
                axis: f"axis_{number}_{axis}"
                for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True))
                if not (isinstance(a, int) and a == b)
            }

    def _step_values(self, leaf: Any) -> Any:
        step = self._step[0]
        if isinstance(leaf, Iteration):
            number = torch.empty((), dtype=torch.int64)
            return number, number
        if isinstance(leaf, Other):
            return step.program.loops[leaf.loop].values[leaf.place]
        return step.body.values[leaf.place]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One iteration."""
        return _Iteration(self, self._step[0], inputs).results()


class _Iteration:
    def __init__(self, module: StepModule, step: StepBody, inputs: tuple[Tensor, ...]) -> None:
        group = step.group
        self._module, self._step = module, step
        counts = len(group.states), len(group.steps)
        self._states = dict(zip(group.states, inputs[: counts[0]], strict=True))
        self._steps = dict(zip(group.steps, inputs[counts[0] : sum(counts)], strict=True))
        self._invariants = dict(zip(step.invariants, inputs[sum(counts) :], strict=True))
        self._known: dict[int, Any] = {}

    def results(self) -> tuple[Tensor, ...]:
        group = self._step.group
        for place in group.places:
            self._known[place] = self._computed(place)
        states = [self._states[place, lag - 1] if lag > 1 else self._known[place] for place, lag in group.states]
        # Copies: the exporter of PyTorch loses an output that is another value by a new name, as after `x.float()`.
        return tuple(part.clone() for part in (*states, *(self._known[place] for place in group.outputs)))

    def _computed(self, place: int) -> Any:
        body = self._step.body
        target = body.targets[place]
        chosen = body.arguments[place][0][2:3]
        args, kwargs = map_tree(body.arguments[place], self._leaf)
        if target is _SELECT and isinstance(chosen[0], Iteration):
            return args[0].index_select(args[1], args[2].reshape(1)).squeeze(args[1])
        return target(*args, **kwargs)

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, Same) and leaf.place in self._step.group.places:
            return self._known[leaf.place] if leaf.lag == 0 else self._states[leaf.place, leaf.lag]
        if isinstance(leaf, (Same, Other, Iteration)):
            return self._steps[leaf]
        if isinstance(leaf, Affine):
            node, axis = self._step.time
            return leaf.at(self._invariants[node].shape[axis]) if leaf.slope else leaf.offset
        if not isinstance(leaf, (Node, At)) or leaf in self._invariants:
            return self._invariants.get(leaf, leaf) if isinstance(leaf, (Node, At)) else leaf
        assert isinstance(leaf, Node)
        if leaf.target == CONSTANT:
            return self._module.constant(leaf)
        assert is_constant(leaf) or not isinstance(leaf.values[0], Tensor)
        args, kwargs = map_tree((leaf.args, leaf.kwargs), self._leaf)  # a size, or what depends on weights alone
        return leaf.target(*args, **kwargs)
