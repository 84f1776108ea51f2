"""ONNX operator -> what writes it in C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.c_code import elementwise, products, reductions, shaping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from exporters.c_code.program import Program

WRITERS: Mapping[str, Callable[[Program, ir.Node], None]] = {
    **dict.fromkeys((*elementwise.UNARY, "Not"), elementwise.unary),
    **dict.fromkeys(elementwise.BINARY, elementwise.several),
    **dict.fromkeys(("Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"), elementwise.parametric),
    **dict.fromkeys(("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"), shaping.same),
    **dict.fromkeys(
        ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"), reductions.reduce
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), reductions.softmax),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), products.recurrent),
    "BatchNormalization": reductions.batch_norm,
    "Cast": elementwise.cast,
    "Clip": elementwise.clip,
    "Concat": shaping.concatenate,
    "Conv": products.convolution,
    "Expand": shaping.expand,
    "Gather": shaping.gather,
    "GatherElements": shaping.gather_elements,
    "Gemm": products.gemm,
    "LayerNormalization": reductions.layer_norm,
    "MatMul": products.matmul,
    "Slice": shaping.cut,
    "Split": shaping.split,
    "Transpose": shaping.transpose,
}
