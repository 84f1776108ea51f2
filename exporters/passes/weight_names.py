"""Gives the weights of a graph the names of the model's parameters, the same in every file of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx

from compressor.onnx_graphs import walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

_OF_NODES = re.compile(r"(^|\.)(W|R)_(l\d+(_reverse)?)$")
"""Buffers in which recurrent nodes find their matrices: gates in ONNX's order, the directions of a layer stacked."""
_PARAMETERS = {"W": "weight_ih", "R": "weight_hh"}


def name_by_parameters(proto: onnx.ModelProto, model: nn.Module) -> None:
    """Rename weights in place.

    A matrix that was transposed while the graph was translated gets the name of its parameter, a matrix of a recurrent
    node that of its forward direction: `rnn.W_l0` is `rnn.weight_ih_l0`.
    """
    parameters = {name: part.detach().cpu().numpy() for name, part in model.named_parameters()}
    known = {tensor.name for graph in walk.graphs(proto.graph) for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        name = _parameter(tensor, parameters, known)
        if name:
            known.add(name)
            renamed[tensor.name] = tensor.name = name
    for node in walk.nodes(proto.graph):
        for place, old in enumerate(node.input):
            node.input[place] = renamed.get(old, old)


def _parameter(tensor: onnx.TensorProto, parameters: Mapping[str, NDArray[np.generic]], known: set[str]) -> str:
    """Name of the parameter that a weight is; empty if it has that name, or is none."""
    if tensor.name in parameters:
        return ""
    matrix = _OF_NODES.search(tensor.name)
    if matrix is not None:
        name = f"{tensor.name[: matrix.start(2)]}{_PARAMETERS[matrix[2]]}_{matrix[3]}"
        return name if name not in known else ""
    if len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
        return ""
    array = onnx.numpy_helper.to_array(tensor)
    for name, parameter in parameters.items():
        if name not in known and parameter.shape == array.shape[::-1] and np.array_equal(parameter.T, array):
            return name
    return ""
