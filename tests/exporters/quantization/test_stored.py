"""What a file holds of its matrices in few bits, and what a runtime makes of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.runtimes.session import open_session
from exporters.quantization.matrices import find
from exporters.quantization.packing import PLANES, packed_bytes
from exporters.quantization.rewrite import rewrite
from exporters.quantization.weights import Weights
from tests.onnx_graphs.graphs import model


def product(inputs, outputs, **kinds):
    weight = np.random.default_rng(3).normal(size=(inputs, outputs)).astype(np.float32)
    return model([helper.make_node("MatMul", ["x", "W"], ["y"])], {"x": ["n", inputs]}, {"y": 2}, {"W": weight})


def rewritten(proto, forms, block=16):
    weights = Weights(proto, find(proto, (), smallest=1), block)
    return rewrite(proto, weights, forms), weights


def packed(proto):
    return {tensor.name: len(tensor.raw_data) for tensor in proto.graph.initializer if ".bits" in tensor.name}


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (16, 8), (8, 16), (37, 48), (48, 37), (24, 40)])
@pytest.mark.parametrize("bits", PLANES)
def test_a_product_in_float_has_the_weights_that_its_bits_say(bits, inputs, outputs):
    form = f"weights{bits}"
    proto, weights = rewritten(product(inputs, outputs), {"W": form})
    assert sum(packed(proto).values()) == packed_bytes(outputs, inputs, bits)
    [found] = open_session(proto.SerializeToString()).run(None, {"x": np.eye(inputs, dtype=np.float32)})
    np.testing.assert_array_equal(found, weights.restored("W", form))


@pytest.mark.parametrize("bits", PLANES)
def test_bytes_made_of_fewer_bits_are_those_that_the_weights_round_to(bits, monkeypatch):
    for moved in (False, True):
        monkeypatch.setattr("exporters.quantization.products.saturate", lambda moved=moved: moved)
        form = f"integer{bits}"
        proto, weights = rewritten(product(64, 48), {"W": form})
        node = next(node for node in proto.graph.node if node.op_type == "MatMulInteger")
        proto.graph.output.append(
            helper.make_tensor_value_info(node.input[1], TensorProto.UINT8 if moved else TensorProto.INT8, None)
        )
        *_, found = open_session(proto.SerializeToString()).run(None, {"x": np.eye(64, dtype=np.float32)})
        np.testing.assert_array_equal(found.astype(int) - 128 * moved, weights.low("W", bits).values)


@pytest.mark.parametrize("bits", PLANES)
def test_a_table_that_is_also_multiplied_as_another_weight_stands_in_the_file_once(bits):
    table = np.random.default_rng(4).normal(size=(24, 32)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["T", "places"], ["rows"]),
        helper.make_node("MatMul", ["rows", "W"], ["y"]),
    ]
    inputs = {"places": (["n"], TensorProto.INT64)}
    proto = model(nodes, inputs, {"y": 2}, {"T": table, "W": np.ascontiguousarray(table.T)})
    rounded, weights = rewritten(proto, {"T": f"weights{bits}", "W": f"weights{bits}"})
    assert sum(packed(rounded).values()) == packed_bytes(24, 32, bits)
    [found] = open_session(rounded.SerializeToString()).run(None, {"places": np.arange(24)})
    rows = weights.restored("T", f"weights{bits}")
    np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-5, atol=1e-5)


def test_no_number_is_held_more_than_four_times_on_the_way_to_a_product():
    proto, _ = rewritten(product(512, 512), {"W": "weights4"}, block=32)
    numbers = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.value_info
    sizes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in numbers}
    assert sum(np.prod(shape) for shape in sizes.values() if all(shape)) < 3.7 * 512 * 512
