"""What this processor makes of products of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.runtimes.integer_products import saturate
from compressor.runtimes.session import open_session


def sums(left, right):
    kinds = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8}
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["sums"])],
        "g",
        [helper.make_tensor_value_info("left", kinds[left.dtype], left.shape)],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, None)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return open_session(model.SerializeToString()).run(None, {"left": left})[0]


@pytest.mark.parametrize("shape", [(1, 2, 1), (1, 70, 33), (7, 5, 16)])
def test_sums_are_exact_with_unsigned_bytes_and_with_signed_ones_if_it_does_not_saturate(shape):
    rows, inner, columns = shape
    generator = np.random.default_rng(0)
    left = generator.integers(200, 256, (rows, inner)).astype(np.uint8)
    for low, high, kind in ((0, 256, np.uint8), (100, 128, np.int8)):
        right = generator.integers(low, high, (inner, columns)).astype(kind)
        exact = np.array_equal(sums(left, right), left.astype(np.int64) @ right.astype(np.int64))
        assert exact == (kind is np.uint8 or not saturate())
