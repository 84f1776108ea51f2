"""ONNX operator -> what writes it in C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.c_code import operators, products

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITERS: Mapping[str, operators.Writer] = {
    **dict.fromkeys((*operators.UNARY, "Not"), operators.unary),
    **dict.fromkeys(operators.BINARY, operators.several),
    **dict.fromkeys(("Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"), operators.parametric),
    **dict.fromkeys(("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"), operators.same),
    **dict.fromkeys(
        ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"), operators.reduce
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), operators.softmax),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), products.recurrent),
    "Cast": operators.cast,
    "Clip": operators.clip,
    "Concat": operators.concatenate,
    "Conv": products.convolution,
    "Expand": operators.expand,
    "Gather": operators.gather,
    "Gemm": products.gemm,
    "LayerNormalization": operators.layer_norm,
    "MatMul": products.matmul,
    "Slice": operators.cut,
    "Split": operators.split,
    "Transpose": operators.transpose,
}
