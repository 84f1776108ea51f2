"""What of a loop has feedback, as an ONNX `Scan`.

While the rolled model is traced a placeholder stands for it, since an operator with a body cannot be emitted then. The
body is a module of its own, traced and translated as any other; `ExpandLoops` puts both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, Names, replace
from compressor.onnx_graphs.scans import scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from exporters.loops.plan import Group
    from exporters.loops.rolled import LoopRun, Results

    Translate = Callable[["StepBody"], ir.Model]

DOMAIN = "compressor"
_PLACEHOLDER = "LoopScan"


def first(x: Tensor, axis: int) -> Tensor:
    """`x.movedim(axis, 0)`, as an operator that has an ONNX form."""
    return x.permute(axis, *(other for other in range(x.dim()) if other != axis)) if axis else x


def stacked(rows: Tensor, axis: int) -> Tensor:
    """`torch.stack` of the rows of a tensor (K, ...)."""
    return rows.permute(*range(1, axis + 1), 0, *range(axis + 1, rows.dim())) if axis else rows


def joined(rows: Tensor, axis: int) -> Tensor:
    """`torch.cat` of the rows of a tensor (K, ...)."""
    if rows.shape[axis + 1] == 1:
        return stacked(rows.squeeze(axis + 1), axis)
    return stacked(rows, axis).flatten(axis, axis + 1)


class StepBody:
    """One iteration of what a `Scan` computes."""

    def __init__(self, loop: LoopRun, group: Group) -> None:
        """Of a group of operations of a loop."""
        from exporters.loops.graph import leaves

        self.body, self.group, self._loop = loop.body, group, loop
        self.program, self.rolled = loop.run.program, loop.run.rolled
        self.invariants: list[Any] = []
        place, axis = self.rolled._times[0]
        self.time = self.program.inputs[place], axis
        for operation in group.places:
            for leaf in leaves(self.body.arguments[operation]):
                self._need(leaf)

    def _need(self, leaf: Any) -> None:
        """Note a tensor that comes from outside and is the same in all iterations."""
        from exporters.loops.graph import leaves
        from exporters.loops.plan import is_constant
        from exporters.loops.unify import Affine, At, Node

        if isinstance(leaf, Affine) and leaf.slope:
            leaf = self.time[0]
        if isinstance(leaf, At) or (isinstance(leaf, Node) and not is_constant(leaf)):
            if isinstance(leaf, Node) and _is_size(leaf):
                for argument in leaves((leaf.args, leaf.kwargs)):
                    self._need(argument)
            elif leaf not in self.invariants:
                self.invariants.append(leaf)

    # --- in the rolled model ---

    def node(
        self, number: int, states: Sequence[Tensor], steps: Sequence[Results]
    ) -> tuple[list[Tensor], list[Results]]:
        """The node: the last states and all results."""
        import torch

        from exporters.loops.rolled import Results

        run = self._loop.run
        backward = all(step.backward for step in steps)
        outputs = [self.body.values[place] for place in self.group.outputs]
        count = steps[0].value.shape[0]
        sizes = [[run.size(pair) for pair in zip(one.shape, other.shape, strict=True)] for one, other in outputs]
        results = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{_PLACEHOLDER}",
            (*states, *(step.value for step in steps), *(run.value(leaf) for leaf in self.invariants)),
            {
                "number": number,
                "states": len(states),
                "backward": [int(step.backward) for step in steps],
                "results": [int(backward)] * len(outputs) or [0],
            },
            dtypes=tuple(part.dtype for part in (*states, *(one for one, _ in outputs))),
            shapes=(*(tuple(state.shape) for state in states), *((count, *size) for size in sizes)),
            version=1,
        )
        del self._loop  # nothing of the tracer is kept
        sequences = [Results(value, backward) for value in results[len(states) :]]
        return list(results[: len(states)]), sequences

    # --- of its own ---

    def module(self) -> Any:
        """One iteration as a module: states, steps and invariants in, new states and results out."""
        from exporters.loops.step_module import StepModule

        return StepModule(self)


def _is_size(node: Any) -> bool:
    import torch

    return isinstance(node.values[0], (int, torch.SymInt))


class ExpandLoops(ir.passes.InPlacePass):
    """Replaces the placeholder of every loop by a `Scan`."""

    def __init__(self, bodies: Sequence[StepBody], translate: Translate) -> None:
        """For the loops of one model.

        Args:
            bodies: As the rolled model numbers them.
            translate: Makes the graph of a body.
        """
        super().__init__()
        self._bodies, self._translate = bodies, translate

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        placeholders = [node for node in model.graph if node.domain == DOMAIN and node.op_type == _PLACEHOLDER]
        for node in placeholders:
            number = node.attributes["number"].as_int()
            _expand(model.graph, node, self._translate(self._bodies[number]).graph, f"loop_{number}")
        if not any(node.domain == DOMAIN for node in model.graph):
            model.opset_imports.pop(DOMAIN, None)
        return ir.passes.PassResult(model, bool(placeholders))


def _expand(graph: ir.Graph, node: ir.Node, body: ir.Graph, prefix: str) -> None:
    states = node.attributes["states"].as_int()
    backward = node.attributes["backward"].as_ints()
    results = node.attributes["results"].as_ints() if len(node.outputs) > states else ()
    count = states + len(backward)
    _rename(body, prefix)
    for inner, outer in zip(list(body.inputs[count:]), node.inputs[count:], strict=True):
        assert outer is not None
        ir.convenience.replace_all_uses_with(inner, outer)  # the body reads it where it is
    del body.inputs[count:]
    names = Names.of(graph)
    for name, weight in list(body.initializers.items()):  # a weight of the body becomes one of the graph
        del body.initializers[name]
        weight.name = names.new(name)
        graph.register_initializer(weight)
    _separate(body)
    for value in (*body.inputs, *body.outputs):
        value.shape = None
    do = Builder(names, prefix)
    replace(node, do, scan(do, body, node.inputs[:states], node.inputs[states:count], backward, results))


def _rename(body: ir.Graph, prefix: str) -> None:
    """Names that nothing else in the file has."""
    values = [*body.inputs, *(value for node in body.all_nodes() for value in node.outputs)]
    for number, value in enumerate(dict.fromkeys(values)):
        value.name = f"{prefix}.{number}"
    for number, node in enumerate(body.all_nodes()):
        node.name = f"{prefix}.node_{number}"
    body.name = prefix


def _separate(body: ir.Graph) -> None:
    """Every output is the result of a node of its own."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(list(body.outputs)):
        node = value.producer()
        if node is None or value in seen or node.graph is not body:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type = f"{value.name}.{index}", value.type
            body.append(copy)
            body.outputs[index] = copy.outputs[0]
        seen.add(body.outputs[index])
