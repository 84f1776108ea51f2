"""The float graph as an NPU may have it, and what of it can be in calibrated integers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from compressor.errors import ExportError
from compressor.onnx_graphs import walk
from compressor.onnx_graphs.builder import first_name
from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from compressor.onnx_graphs.unrolling.recurrent import obstacle
from exporters.quantization.matrices import Matrix, Use
from exporters.quantization.npu.graphs import LEFT_OUT, MOVES, inferred, name_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

OPERATORS = "operators."
"""In front of the operator's name in the name of what stands for all its nodes."""
_FARTHEST = 1e4
"""The largest number of a mask: -inf has no scale, and with the smallest float32 ONNX Runtime's sums of integers
overflow."""
_INTO_SCORES = frozenset({"Add", "Mul", "Sub", "Where", *MOVES})
"""What lies between a Softmax and the masks of its scores."""


def prepared(proto: onnx.ModelProto, hint: str) -> onnx.ModelProto:
    """The graph with a name for every node, and masks of scores that are -1e4 instead of -inf or the smallest float.

    Raises:
        ExportError: A shape is open.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in copy.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                word = dimension.dim_param or str(axis)
                raise ExportError(
                    f"axis `{word}` of the input `{value.name}` is open, and NPUs take fixed shapes only",
                    hint=hint or "name it in `shapes`, such as `shapes: {batch: 1, time: 32}`",
                )
    masks = _in_front_of_softmax(copy)
    for tensor in copy.graph.initializer:
        if tensor.name in masks and tensor.data_type == onnx.TensorProto.FLOAT:
            near = np.clip(onnx.numpy_helper.to_array(tensor), np.float32(-_FARTHEST), np.float32(_FARTHEST))
            tensor.CopyFrom(onnx.numpy_helper.from_array(near, tensor.name))
    name_nodes(copy, "node")
    return copy


def _in_front_of_softmax(proto: onnx.ModelProto) -> set[str]:
    """Values that reach a Softmax through sums, choices and products of numbers one by one."""
    writers = walk.writers(proto.graph)
    todo = [node.input[0] for node in proto.graph.node if node.op_type == "Softmax"]
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            node = writers.get(name)
            todo += node.input if node is not None and node.op_type in _INTO_SCORES else []
    return reached


def fit(proto: onnx.ModelProto, matrices: Sequence[Matrix]) -> list[Matrix]:
    """The matrices, each with the reason if it cannot be in calibrated integers."""
    obstacles = {}
    for node in ir.from_proto(inferred(proto)).graph:
        if node.op_type in RECURRENT:
            obstacles[first_name(node)] = obstacle(node)
    firsts = {node.output[0]: next(name for name in node.output if name) for node in proto.graph.node if node.output}
    judged = []
    for matrix in matrices:
        why = [obstacles.get(firsts.get(use.node, use.node), "") for use in matrix.uses if use.operator in RECURRENT]
        inside = [use.operator for use in matrix.uses if use.node not in firsts]
        text = next((f"`{matrix.uses[0].operator}` stays: {reason}" for reason in why if reason), "")
        if inside:
            text = f"`{inside[0]}` is in the body of a loop, which no NPU takes"
        judged.append(replace(matrix, unfit=text))
    return judged


def operators(proto: onnx.ModelProto, matrices: Sequence[Matrix], keep_float: Sequence[str]) -> list[Matrix]:
    """The nodes that compute with floats and have no matrix, one entry for all nodes of an operator."""
    sizes = _sizes(proto)
    with_matrix = {use.node for matrix in matrices for use in matrix.uses if matrix.channels}
    by_operator: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in proto.graph.node:
        computes = node.op_type not in MOVES and node.op_type not in LEFT_OUT
        if (
            computes
            and node.output[0] not in with_matrix
            and any(name in sizes for name in (*node.input, *node.output))
        ):
            by_operator[node.op_type].append(node)
    groups = []
    for operator, nodes in by_operator.items():
        name = OPERATORS + operator
        pattern = next((pattern for pattern in keep_float if fnmatchcase(name, pattern)), None)
        uses = tuple(Use(operator, 0, node.output[0], plain=True, channels=()) for node in nodes)
        activations = 4 * sum(sizes.get(output, 0) for node in nodes for output in node.output)
        refused = f"`keep_float: {pattern}`" if pattern else ""
        groups.append(Matrix(name, (), uses, (), refused, activations=activations))
    return groups


def _sizes(proto: onnx.ModelProto) -> dict[str, int]:
    """Name of a float tensor that no weight is -> how many numbers it holds."""
    graph = inferred(proto).graph
    sizes = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.FLOAT:
            sizes[value.name] = int(np.prod([dimension.dim_value or 1 for dimension in kind.shape.dim]))
    return sizes
