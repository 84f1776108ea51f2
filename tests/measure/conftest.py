"""Small ONNX files made node by node, so that no exporter stands between a test and what it measures."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def write(tmp_path):
    """Write a model of `nodes` and return its path; `inputs` and `outputs` map names to shapes, `weights` to arrays."""

    def writer(nodes, inputs, outputs, weights=None, *, name="model", opset=20, types=None, functions=()) -> Path:
        types = types or {}

        def values(shapes):
            return [
                helper.make_tensor_value_info(key, types.get(key, TensorProto.FLOAT), shape)
                for key, shape in shapes.items()
            ]

        graph = helper.make_graph(
            nodes,
            "graph",
            values(inputs),
            values(outputs),
            [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()],
        )
        domains = [helper.make_opsetid("", opset), *(helper.make_opsetid(item.domain, 1) for item in functions)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=10, functions=functions)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return writer


@pytest.fixture
def linear(write):
    """x (batch, 5) -> x @ W (batch, 3), with W = 0, 1, 2 ... 14."""
    weight = np.arange(15, dtype=np.float32).reshape(5, 3)
    node = helper.make_node("MatMul", ["x", "W"], ["y"])
    return write([node], {"x": ["batch", 5]}, {"y": ["batch", 3]}, {"W": weight})


def recurrent_weights(gates, *, inputs, hidden, directions=1):
    draw = np.random.default_rng(0)
    return {
        "W": draw.standard_normal((directions, gates * hidden, inputs), dtype=np.float32),
        "R": draw.standard_normal((directions, gates * hidden, hidden), dtype=np.float32),
    }
