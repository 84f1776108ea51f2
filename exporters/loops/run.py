"""One run of a rolled model: what is computed outside its loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from exporters.loops import results
from exporters.loops.description import Affine, At, Node, Steps, through
from exporters.loops.operations import CONSTANT, map_tree
from exporters.loops.refusal import NotRolledError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from exporters.loops.description import Program
    from exporters.loops.weights import Adopting

_OPS = torch.ops.aten
_JOINS = (_OPS.cat.default, _OPS.stack.default)


class LoopResults(Protocol):
    """What is read of a loop outside it."""

    def at(self, place: int, index: Affine) -> Tensor:
        """The result of an operation in one iteration."""

    def rows(self, part: Steps) -> Tensor:
        """Results of an operation in some iterations, in the order of the list."""


class Run:
    """Computes the outputs for some inputs; numbers may be symbols of the tracer."""

    loops: Sequence[LoopResults]
    """Set before anything is computed."""

    def __init__(
        self, module: Adopting, program: Program, inputs: Sequence[Tensor], times: Sequence[tuple[int, int]]
    ) -> None:
        """Nothing is computed yet.

        Args:
            module: Has the weights.
            program: What is computed.
            inputs: Of the model.
            times: Input and axis, for each axis of time.
        """
        self.module, self.program, self.inputs = module, program, inputs
        (place, axis), *more = times
        self.length: Any = inputs[place].shape[axis]
        self.time = program.inputs[place], axis
        """An input, and its axis that is as long as the sequences."""
        for other, other_axis in more:
            torch._check(inputs[other].shape[other_axis] == self.length)
        self._known: dict[Node, Any] = dict(zip(program.inputs, inputs, strict=True))

    def outputs(self) -> tuple[Tensor, ...]:
        """What the model gives."""
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
        if leaf not in self._known:
            self._known[leaf] = self._computed(leaf)
        return self._known[leaf]

    def _computed(self, node: Node) -> Any:
        if node.target == CONSTANT:
            return self.module.constant(node)
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
        """`torch.stack` or `torch.cat` of lists with steps of a loop."""
        if node.target not in _JOINS:
            self._resolved(node)  # which refuses
        parts, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
        result = node.values[0]
        axis %= result.dim()
        pieces = []
        for part in parts:
            if isinstance(part, Steps):
                join = results.stacked if node.target is _OPS.stack.default else results.joined
                pieces.append(join(self.loops[part.loop].rows(part), axis))
            else:
                value = self.value(part)
                pieces.append(value.unsqueeze(axis) if node.target is _OPS.stack.default else value)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, axis)

    def size(self, sizes: tuple[Any, Any]) -> Any:
        """A size, from those at both lengths."""
        one, other = sizes
        if isinstance(one, int) and isinstance(other, int):
            function = through(self.program.lengths, one, other)
            if function is not None:
                return function.at(self.length)
        for node, tensor in zip(self.program.inputs, self.inputs, strict=True):
            for axis, size in enumerate(node.values[0].shape):
                if not isinstance(size, int) and str(size) == str(one):
                    return tensor.shape[axis]
        raise NotRolledError(f"a state has the size {one}, which is not an axis of an input")
