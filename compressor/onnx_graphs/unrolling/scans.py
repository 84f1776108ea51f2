"""A `Scan` of known length as plain operations, one copy of its body for each step: for runtimes without `Scan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, Names, first_name, replace
from compressor.onnx_graphs.unrolling.rows import stacked

if TYPE_CHECKING:
    from collections.abc import Sequence


def unroll(model: ir.Model) -> int:
    """Replace every `Scan` whose number of steps is known, in place; returns how many.

    Shapes must have been inferred. A `Scan` that steps along another axis than the first, or whose body has a body of
    its own, is left alone.
    """
    replaced = 0
    for node in list(model.graph):
        scan = _Scan(node) if node.op_type == "Scan" else None
        if scan is not None and scan.steps is not None and scan.is_plain:
            scan.unroll(Names.of(model.graph))
            replaced += 1
    return replaced


class _Scan:
    """One node."""

    def __init__(self, node: ir.Node) -> None:
        self._node, attributes = node, node.attributes
        self._body = attributes["body"].as_graph()
        sequences = attributes["num_scan_inputs"].as_int()
        self._states = len(node.inputs) - sequences
        results = len(node.outputs) - self._states
        self._back_in = attributes.get_ints("scan_input_directions", [0] * sequences)
        self._back_out = attributes.get_ints("scan_output_directions", [0] * results)
        axes = [*attributes.get_ints("scan_input_axes", []), *attributes.get_ints("scan_output_axes", [])]
        self.is_plain = not any(axes) and not any(True for _ in self._body.subgraphs())

    @property
    def steps(self) -> int | None:
        """How many there are, if that is known."""
        sequence = self._node.inputs[self._states]
        if sequence is None or sequence.shape is None or not sequence.shape.rank():
            return None
        size = sequence.shape[0]
        return size if isinstance(size, int) else None

    def unroll(self, names: Names) -> None:
        """Replace the node by one copy of the body for each step."""
        assert self.steps is not None
        graph, prefix = self._node.graph, f"unrolled.{self._node.name or first_name(self._node)}"
        assert isinstance(graph, ir.Graph)
        do = Builder(names, prefix)
        for name, weight in list(self._body.initializers.items()):  # weights of the body become weights of the graph
            del self._body.initializers[name]
            weight.name = names.new(f"{prefix}.{name}")
            graph.register_initializer(weight)
        states: list[ir.Value | None] = list(self._node.inputs[: self._states])
        results: list[list[ir.Value]] = []
        for step in range(self.steps):
            places = [self.steps - 1 - step if back else step for back in self._back_in]
            elements = [
                do("Gather", [sequence, do.constant(np.array(place, np.int64))], axis=0)
                for sequence, place in zip(self._node.inputs[self._states :], places, strict=True)
            ]
            outputs = self._copy(do, [*states, *elements])
            states = list(outputs[: self._states])
            results.append(outputs[self._states :])
        stacks = [
            stacked(do, rows[::-1] if back else rows)
            for rows, back in zip(zip(*results, strict=True), self._back_out, strict=True)
        ]
        outputs = [*(do("Identity", [state]) for state in states), *stacks]
        pairs = zip(self._node.outputs, outputs, strict=True)
        replace(self._node, do, [new if old.name else None for old, new in pairs])

    def _copy(self, do: Builder, inputs: Sequence[ir.Value | None]) -> list[ir.Value]:
        """A copy of the body's nodes on these inputs; gives the values of its outputs."""
        known: dict[ir.Value | None, ir.Value | None] = dict(zip(self._body.inputs, inputs, strict=True))
        for node in self._body:
            arguments = [known.get(value, value) for value in node.inputs]
            outputs = do.several(
                node.op_type, arguments, len(node.outputs), domain=node.domain, attributes=node.attributes
            )
            known |= zip(node.outputs, outputs, strict=True)
        copies = [known.get(value, value) for value in self._body.outputs]
        assert all(value is not None for value in copies)
        return copies  # type: ignore[return-value]
