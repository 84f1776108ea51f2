"""A module that computes what a model with loops does, at any length, and that can be traced at an open one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from exporters.capture.native_node import prepare_node
from exporters.loops.description import Node
from exporters.loops.kinds import CELLS, Kind
from exporters.loops.loop_run import LoopRun, Nodes
from exporters.loops.operations import CONSTANT, map_tree
from exporters.loops.plan import plan
from exporters.loops.run import Run
from exporters.loops.weights import Adopting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from compressor.nn.recurrent.cells import Cell
    from exporters.loops.description import Program
    from exporters.loops.plan import Plan
    from exporters.loops.scan import StepBody

    Axes = Mapping[str, Mapping[int, str]]


class Rolled(Adopting):
    """A model whose loops are loops again."""

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
        super().__init__(model, program.constants)
        self._program = program
        self._times = [
            (place, axis) for place, words in enumerate(axes.values()) for axis, word in words.items() if word == "time"
        ]
        self._plans = plan(program, min_length)
        cells = {
            (index, place): self._prepare_cell(planned, place, index)
            for index, planned in enumerate(self._plans)
            for place, kind in enumerate(planned.kinds)
            if kind is Kind.CELL and planned.body.targets[place] in CELLS
        }
        self._nodes = Nodes(cells)  # an object of its own, since a tracer puts the attributes of a module back

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the model gives."""
        self._nodes.bodies.clear()
        run = Run(self, self._program, inputs, self._times)
        loops: list[LoopRun] = []
        for index, planned in enumerate(self._plans):
            loops.append(LoopRun(run, index, planned, loops, self._nodes))
        run.loops = loops
        return run.outputs()

    @property
    def bodies(self) -> list[StepBody]:
        """Of all `Scan` nodes, once `forward` was traced."""
        return self._nodes.bodies

    def _prepare_cell(self, planned: Plan, place: int, index: int) -> tuple[str, nn.Module, Cell]:
        """Weights of a cell as its node wants them: suffix of the names of the buffers, and where they are."""
        cell = CELLS[planned.body.targets[place]]
        _, _, *weights = planned.body.arguments[place][0]
        parameters = zip((parameter.name for parameter in cell.parameters), weights, strict=False)
        values = {name: self._value(node) for name, node in parameters if node is not None}
        names = [node.name for node in weights[:2]]
        owners = {self.names.get(name, "").rpartition(".")[0] for name in names}
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
