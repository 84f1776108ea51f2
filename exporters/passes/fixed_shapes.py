"""An ONNX file for one sample and one length, for converters that want every shape known.

With the length known, an RNN whose activation is Relu becomes plain operations, one copy of them for each position:
MNN, ncnn and tract compute its node as if it were tanh, with no warning. So does a `Scan`, which neither MNN nor ncnn
has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from compressor.errors import ExportError
from compressor.onnx_graphs.recurrent_node import RecurrentNode, is_relu
from compressor.onnx_graphs.unrolling import recurrent, scans
from compressor.runtimes.session import first_line, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.task.contract import Task

_SIZES = {"batch": 1}


def write(source: Path, target: Path, task: Task, length: int) -> Path:
    """Write `source` for batch 1 and one length to `target`, shapes computed, Relu RNNs and every `Scan` unrolled.

    Raises:
        ExportError: The file cannot be written for that length.
    """
    proto = onnx.load(source)
    sizes = {**_SIZES, "time": length}
    for named, values in ((task.inputs, proto.graph.input), (task.outputs, proto.graph.output)):
        for value in values:
            for axis, word in named.get(value.name, {}).items():
                if word in sizes:
                    value.type.tensor_type.shape.dim[axis].dim_value = sizes[word]
    del proto.graph.value_info[:]
    fixed = target.with_suffix(".fixed.onnx")
    onnx.save(_without_relu(proto), fixed)
    _fold(fixed, target)
    if any(node.op_type == "Scan" for node in proto.graph.node):  # shapes, and so its steps, are known now
        model = _inferred(onnx.load(target))
        scans.unroll(model)
        onnx.save(_checked(model), fixed)
        _fold(fixed, target)
    return target


def has_relu(source: Path) -> bool:
    """Whether a file has an RNN node of Relu."""
    return _has_relu(ir.from_proto(onnx.load(source)))


def _has_relu(model: ir.Model) -> bool:
    return any(_is_relu(node) for node in model.graph)


def _is_relu(node: ir.Node) -> bool:
    return is_relu(node) and RecurrentNode(node).input("lengths") is None


def _without_relu(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with plain operations instead of its RNN nodes of Relu; those that cannot be unrolled stay."""
    if not _has_relu(ir.from_proto(proto)):
        return proto
    model = _inferred(proto)
    for node in list(model.graph):
        if _is_relu(node) and not recurrent.obstacle(node):
            recurrent.unroll(model.graph, node)
    return _checked(model)


def _inferred(proto: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def _checked(model: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _fold(source: Path, target: Path) -> None:
    """Let ONNX Runtime compute what is constant now: the arithmetic of shapes."""
    try:
        open_session(source, optimization="basic", optimized=target)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(
            f"the model cannot be fixed to one length: {first_line(error)}", hint="leave `length` out"
        ) from error
