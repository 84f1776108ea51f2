"""A quantized graph without the rounding of its activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx.numpy_helper import from_array, to_array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def without_activations(rounded: onnx.ModelProto, plain: onnx.ModelProto, matrices: set[str]) -> onnx.ModelProto:
    """A quantized graph without its pairs: matrices are what their integers stand for, all else is float as it was.

    The integers are multiplied by their scales here: ONNX Runtime turns a DequantizeLinear in front of a product into
    one that rounds the other side too.
    """
    floats = {f"{tensor.name}_quantized": tensor for tensor in plain.graph.initializer}
    weights = {tensor.name: tensor for tensor in rounded.graph.initializer}
    same: dict[str, str] = {}
    new: dict[str, onnx.TensorProto] = {}
    kept = []
    for node in rounded.graph.node:
        source = same.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "QuantizeLinear" or (node.op_type == "DequantizeLinear" and source not in weights):
            same[node.output[0]] = source
        elif node.op_type == "DequantizeLinear" and source in floats:
            tensor = floats[source]
            if tensor.name in matrices:
                array = _dequantized(node, weights)
                tensor = from_array(array.reshape(tuple(tensor.dims)), node.output[0])
            same[node.output[0]] = tensor.name
            new[tensor.name] = tensor
        else:
            kept.append(node)
    twin = onnx.ModelProto()
    twin.CopyFrom(rounded)
    del twin.graph.node[:], twin.graph.initializer[:]
    for node in kept:
        copied = twin.graph.node.add()
        copied.CopyFrom(node)
        copied.input[:] = [same.get(name, name) for name in node.input]
    for output in rounded.graph.output:
        if output.name in same:
            twin.graph.node.append(onnx.helper.make_node("Identity", [same[output.name]], [output.name]))
    used = {name for node in twin.graph.node for name in node.input}
    twin.graph.initializer.extend(tensor for name, tensor in {**weights, **new}.items() if name in used)
    return twin


def _dequantized(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> NDArray[np.float32]:
    """What a DequantizeLinear gives of a constant."""
    values, scale, zero = (to_array(weights[name]) for name in node.input)
    if scale.ndim:
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    floats: NDArray[np.float32] = (values.astype(np.float32) - zero.astype(np.float32)) * scale
    return floats
