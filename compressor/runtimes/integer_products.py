"""Whether products of 8-bit integers are exact on this processor."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressor.runtimes.session import open_session

_OPSET, _IR_VERSION = 18, 8


@cache
def saturate() -> bool:
    """Whether ONNX Runtime clips sums of unsigned times signed bytes to 16 bits here.

    x86 processors with AVX2 or AVX-512 and without VNNI do: two products of 255 and 127 are 64,770, and 32,767 comes
    out. Products of unsigned bytes are exact everywhere, and so are both on ARM (ONNX Runtime, "Quantize ONNX models",
    section "When and why do I need to try U8U8?").
    """
    rows, inner, columns = 4, 64, 16
    left = np.full((rows, inner), 255, np.uint8)
    right = np.full((inner, columns), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["sums"])],
        "products",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(right, "right")],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    [sums] = open_session(model.SerializeToString()).run(None, {"left": left})
    return not np.array_equal(sums, left.astype(np.int32) @ right.astype(np.int32))
