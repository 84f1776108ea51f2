"""An ONNX file for one sample and one length, for converters that want every shape known.

With the length known, an RNN whose activation is Relu becomes plain operations, one copy of them for each position: MNN
(as ncnn and tract) takes its node for one of tanh, without a word. So does a `Scan`, which neither MNN nor ncnn has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from compressor.errors import ExportError
from compressor.onnx_graphs import unrolled_nodes, unrolled_scans
from compressor.onnx_graphs.partition import is_relu
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
    model = onnx.load(source)
    sizes = {**_SIZES, "time": length}
    for named, values in ((task.inputs, model.graph.input), (task.outputs, model.graph.output)):
        for value in values:
            for axis, word in named.get(value.name, {}).items():
                if word in sizes:
                    value.type.tensor_type.shape.dim[axis].dim_value = sizes[word]
    del model.graph.value_info[:]
    fixed = target.with_suffix(".fixed.onnx")
    onnx.save(_unroll_relu(model), fixed)
    _fold(fixed, target)
    if unrolled_scans.has_scan(model):  # how many steps it has is known once shapes are
        model = onnx.load(target)
        unrolled_scans.unroll(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, fixed)
        _fold(fixed, target)
    return target


def _fold(source: Path, target: Path) -> None:
    """Let ONNX Runtime compute what is constant now: the arithmetic of shapes."""
    try:
        open_session(source, optimization="basic", optimized=target)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(
            f"the model cannot be fixed to one length: {first_line(error)}", hint="leave `length` out"
        ) from error


def _unroll_relu(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with plain operations in the place of its RNN nodes of Relu; such that cannot be unrolled stay."""
    if not any(_is_relu(node) for node in model.graph.node):
        return model
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    for node in list(graph.graph):
        if node.op_type == "RNN" and _is_relu(ir.to_proto(node)) and not unrolled_nodes.obstacle(node):
            unrolled_nodes.unroll(graph.graph, node)
    made = ir.to_proto(graph)
    onnx.checker.check_model(made, full_check=True)
    return made


def has_relu(source: Path) -> bool:
    """Whether a file has an RNN node of Relu."""
    return any(_is_relu(node) for node in onnx.load(source).graph.node)


def _is_relu(node: onnx.NodeProto) -> bool:
    return is_relu(node) and not (len(node.input) > 4 and node.input[4])
