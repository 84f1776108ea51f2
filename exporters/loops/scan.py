"""What of a loop has feedback, as an ONNX `Scan`.

While the rolled model is traced a placeholder stands for it, since an operator with a body cannot be emitted then. The
body is a module of its own, traced and translated as any other; `expand` puts both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir
    from torch import Tensor

    from exporters.loops.plan import Group
    from exporters.loops.rolled import LoopRun, Results

    Translate = Callable[["StepBody"], onnx_ir.Model]

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
                for given in leaves((leaf.args, leaf.kwargs)):
                    self._need(given)
            elif leaf not in self.invariants:
                self.invariants.append(leaf)

    # --- in the rolled model ---

    def node(
        self, number: int, states: Sequence[Tensor], steps: Sequence[Results]
    ) -> tuple[list[Tensor], list[Results]]:
        """The last states and all results, where the node stands."""
        import torch

        from exporters.loops.rolled import Results

        run = self._loop.run
        backward = all(step.backward for step in steps)
        outputs = [self.body.values[place] for place in self.group.outputs]
        count = steps[0].value.shape[0]
        sizes = [[run.size(pair) for pair in zip(one.shape, other.shape, strict=True)] for one, other in outputs]
        found = torch.onnx.ops.symbolic_multi_out(
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
        sequences = [Results(value, backward) for value in found[len(states) :]]
        return list(found[: len(states)]), sequences

    # --- of its own ---

    def module(self) -> Any:
        """One iteration as a module: states, steps and invariants in, new states and results out."""
        from exporters.loops.step_module import StepModule

        return StepModule(self)


def _is_size(node: Any) -> bool:
    import torch

    return isinstance(node.values[0], (int, torch.SymInt))


def expand(model: onnx_ir.Model, bodies: Sequence[StepBody], translate: Translate) -> None:
    """Put a `Scan` in the place of every placeholder, in place.

    Args:
        model: The graph.
        bodies: As the rolled model numbers them.
        translate: Makes the graph of a body.
    """
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == _PLACEHOLDER:
            number = node.attributes["number"].as_int()
            _expand(model.graph, node, translate(bodies[number]), f"loop_{number}")
    if not any(node.domain == DOMAIN for node in model.graph):
        model.opset_imports.pop(DOMAIN, None)


def _expand(graph: onnx_ir.Graph, node: onnx_ir.Node, body_model: onnx_ir.Model, prefix: str) -> None:
    import onnx_ir as ir

    body = body_model.graph
    states = node.attributes["states"].as_int()
    backward = list(node.attributes["backward"].as_ints())
    count = states + len(backward)
    _rename(body, prefix)
    for inner, outer in zip(list(body.inputs[count:]), node.inputs[count:], strict=True):
        assert outer is not None
        ir.convenience.replace_all_uses_with(inner, outer)  # the body reads it where it is
    del body.inputs[count:]
    taken = {value.name for each in graph.all_nodes() for value in each.outputs} | {
        value.name for value in graph.inputs
    }
    for name in list(body.initializers):
        _move(graph, body, body.initializers[name], taken)
    _separate(body)
    for value in (*body.inputs, *body.outputs):
        value.shape = None
    made = ir.Node(
        "",
        "Scan",
        node.inputs[:count],
        [
            ir.AttrGraph("body", body),
            ir.AttrInt64("num_scan_inputs", len(backward)),
            ir.AttrInt64s("scan_input_directions", backward),
            *_directions(node, states),
        ],
        num_outputs=len(node.outputs),
        name=prefix,
    )
    for old, value in zip(node.outputs, made.outputs, strict=True):
        value.shape, value.type, value.name = old.shape, old.type, old.name
    graph.insert_before(node, made)
    ir.convenience.replace_all_uses_with(node.outputs, made.outputs, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _directions(node: onnx_ir.Node, states: int) -> list[onnx_ir.Attr]:
    import onnx_ir as ir

    if len(node.outputs) == states:
        return []
    return [ir.AttrInt64s("scan_output_directions", list(node.attributes["results"].as_ints()))]


def _rename(body: onnx_ir.Graph, prefix: str) -> None:
    """Names that nothing else in the file has."""
    values = [*body.inputs, *(value for node in body.all_nodes() for value in node.outputs)]
    for number, value in enumerate(dict.fromkeys(values)):
        value.name = f"{prefix}.{number}"
    for number, node in enumerate(body.all_nodes()):
        node.name = f"{prefix}.node_{number}"
    body.name = prefix


def _move(graph: onnx_ir.Graph, body: onnx_ir.Graph, value: onnx_ir.Value, taken: set[str | None]) -> None:
    """A weight of the body becomes one of the graph, under its name or another one."""
    assert value.name is not None
    del body.initializers[value.name]
    name, number = value.name, 1
    while name in graph.initializers or name in taken:
        name, number = f"{value.name}.{number}", number + 1
    value.name = name
    graph.register_initializer(value)


def _separate(body: onnx_ir.Graph) -> None:
    """Every output is the result of a node of its own."""
    import onnx_ir as ir

    seen: set[onnx_ir.Value] = set()
    for index, value in enumerate(list(body.outputs)):
        node = value.producer()
        if node is None or value in seen or node.graph is not body:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type = f"{value.name}.{index}", value.type
            body.append(copy)
            body.outputs[index] = copy.outputs[0]
        seen.add(body.outputs[index])
