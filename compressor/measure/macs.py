"""Multiply-accumulates of an ONNX file at concrete input shapes (FLOPs = 2 x MACs).

Matrix products, convolutions and recurrent layers are counted, in the body of a `Scan` once for each step. Elementwise
arithmetic, activations, normalisation, biases and peepholes are not, as usual. Shapes are not inferred but seen: the
graph is run once in ONNX Runtime with the inputs and outputs of the counted nodes as additional outputs, which works
for every graph that runs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto
from onnx.inliner import inline_local_functions

from compressor.errors import ExportError
from compressor.measure.mac_counters import NodeShapes, UncountableError, counter, is_free_of_products
from compressor.onnx_graphs import walk
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from compressor.measure.mac_counters import Shape


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates by operator type, and the operators that could not be counted."""

    by_operator: Mapping[str, int]
    uncounted: tuple[str, ...] = ()
    """Types of operators that may multiply weights in a way not known here."""
    by_node: Mapping[int, int] = field(default_factory=dict)
    """Place of a node in the graph that `load` gives -> its products; that of a `Scan` with all its steps."""

    @property
    def total(self) -> int | None:
        """The sum; None if an operator was not counted, since the sum would be too small."""
        return None if self.uncounted else sum(self.by_operator.values())


def count(path: Path, inputs: Sequence[Tensor]) -> int | None:
    """Multiply-accumulates of one run of `path` on `inputs`; None if an operator cannot be counted, see `survey`."""
    return survey(path, inputs).total


def survey(path: Path, inputs: Sequence[Tensor]) -> MacCount:
    """Multiply-accumulates of one run of `path` on `inputs`, by operator type.

    Raises:
        ExportError: The file cannot be loaded or run.
        UsageError: The file does not take these inputs.
    """
    feed = OnnxFile(path).feed(inputs)
    return _survey(path, load(path), feed)


def _survey(path: Path, model: ModelProto, feed: Mapping[str, Any]) -> MacCount:
    holding = [node for node in model.graph.node if counter(node) is None and _may_hold_products(node, model)]
    loops = [node for node in holding if walk.operator(node) == "Scan"]
    uncounted = [_label(node) for node in holding if walk.operator(node) != "Scan"]
    nodes = [node for node in model.graph.node if counter(node) is not None]
    shapes = _shapes(path, model, [*nodes, *loops], feed)
    by_operator: Counter[str] = Counter()
    places = {id(node): place for place, node in enumerate(model.graph.node)}
    by_node: dict[int, int] = {}
    for node in nodes:
        count_products = counter(node)
        assert count_products is not None
        try:
            by_node[places[id(node)]] = products = count_products(NodeShapes(node, shapes))
        except UncountableError:
            uncounted.append(_label(node))
            continue
        by_operator[node.op_type] += products
    for node in loops:
        try:
            steps, body = _body_of_scan(path, model, node, shapes)
        except UncountableError:
            uncounted.append(_label(node))
            continue
        by_operator.update({operator: steps * products for operator, products in body.by_operator.items()})
        by_node[places[id(node)]] = steps * sum(body.by_operator.values())
        uncounted += body.uncounted
    return MacCount(dict(by_operator), tuple(dict.fromkeys(uncounted)), by_node)


def _body_of_scan(path: Path, model: ModelProto, node: NodeProto, shapes: Mapping[str, Shape]) -> tuple[int, MacCount]:
    """Number of steps, and the MACs of one: the body runs as a model of its own, on zeros.

    Raises:
        UncountableError: It runs along another axis than the first, or reads values of the graph around it that are
            computed there from its inputs.
    """
    attributes = {item.name: item for item in node.attribute}
    if "scan_input_axes" in attributes and any(attributes["scan_input_axes"].ints):
        raise UncountableError
    body, sequences = attributes["body"].g, attributes["num_scan_inputs"].i
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    inside = {value.name for value in body.input} | {name for inner in body.node for name in inner.output}
    inside |= {tensor.name for tensor in body.initializer}
    captured = {name for inner in body.node for name in inner.input if name} - inside
    computed = _computed_from_weights(model.graph, captured, set(weights))
    captured |= {name for inner in computed for name in inner.input if name}
    alone = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=body)
    alone.graph.initializer.extend(weights[name] for name in sorted(captured & set(weights)))
    del alone.graph.node[:]
    alone.graph.node.extend([*computed, *body.node])
    feed = {}
    for index, (outer, value) in enumerate(zip(node.input, alone.graph.input, strict=True)):
        shape = shapes[outer][1 if index >= len(node.input) - sequences else 0 :]
        element = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))
        feed[value.name] = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(element))
    return shapes[node.input[-1]][0], _survey(path, alone, feed)


def _computed_from_weights(graph: GraphProto, names: set[str], weights: set[str]) -> list[NodeProto]:
    """The nodes that compute those of `names` that are no weights, in the order of the graph.

    Raises:
        UncountableError: One of them depends on an input of the graph.
    """
    missing, nodes = names - weights, []
    for node in reversed(graph.node):
        if missing.isdisjoint(node.output):
            continue
        nodes.append(node)
        missing = (missing - set(node.output)) | ({name for name in node.input if name} - weights)
    if missing:
        raise UncountableError
    return nodes[::-1]


def _may_hold_products(node: NodeProto, model: ModelProto) -> bool:
    """Does this uncounted node multiply matrices, as far as one can tell?

    Operators of other domains might; a control-flow operator does if a node in its bodies does; a standard operator
    that is not known to be free of products might if it takes a weight of two or more axes.
    """
    if node.domain not in walk.STANDARD:
        return True
    bodies = list(walk.bodies(node))
    if bodies:
        return any(
            counter(inner) is not None or _may_hold_products(inner, model) for body in bodies for inner in body.node
        )
    if is_free_of_products(node):
        return False
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    return any(name in matrices for name in node.input)


def _label(node: NodeProto) -> str:
    return walk.operator(node).replace(":", "::")


def load(path: Path) -> ModelProto:
    """The model with its own functions inlined; raises `ExportError` if it cannot be read."""
    try:
        model: ModelProto = onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ExportError(f"{path} is not an ONNX model: {error}", hint="export the model again") from error
    return inline_local_functions(model) if model.functions else model


def _shapes(path: Path, model: ModelProto, nodes: Sequence[NodeProto], feed: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of every input and output of `nodes` when the graph runs on `feed`."""
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= {name: array.shape for name, array in feed.items()}
    wanted = [name for node in nodes for name in (*node.input, *node.output[:1]) if name and name not in shapes]
    names = list(dict.fromkeys(wanted))
    if not names:
        return shapes
    seen = ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        # without optimization, which would fuse the nodes away
        values = open_session(seen.SerializeToString(), optimization="none").run(names, dict(feed))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(f"{path} cannot be run to see its shapes: {error}", hint="does it run at all?") from error
    return shapes | {name: value.shape for name, value in zip(names, values, strict=True)}
