"""What a report says of each matrix of a rounded file."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import onnx

from compressor.onnx_graphs import walk
from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from compressor.report import QuantizedMatrix
from exporters.quantization.forms import arithmetic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporters.quantization.choice import Chosen
    from exporters.quantization.matrices import Matrix
    from exporters.quantization.weights import Weights
    from exporters.quantization.writing import Writer


_KIND = re.compile(r"\.(int8|int4|bits\d|scale|float16|transposed)(\.\d+)?$")
"""What `products` adds to the name of a matrix."""


def constants(matrices: Sequence[Matrix], rounded: onnx.ModelProto) -> dict[str, int]:
    """Weights that no operator multiplies and that are integers in the file -> their bytes."""
    sizes = {}
    stored = {tensor.name: tensor for tensor in rounded.graph.initializer}
    for matrix in matrices:
        tensor = stored.get(f"{matrix.name}_quantized")
        if matrix.shape and not matrix.channels and tensor is not None:
            sizes[matrix.name] = int(onnx.numpy_helper.to_array(tensor).nbytes)
    return sizes


def stored_bytes(matrices: Sequence[Matrix], rounded: onnx.ModelProto) -> dict[str, int]:
    """Matrix -> bytes of what a file that is not for NPUs holds of it, scales included; no byte counts twice."""
    sizes = {matrix.name: 0 for matrix in matrices}
    for graph in walk.graphs(rounded.graph):
        for tensor in graph.initializer:
            name = tensor.name if tensor.name in sizes else _KIND.sub("", tensor.name)
            if name in sizes:
                # Not the array: of a draft, float weights lie elsewhere.
                sizes[name] += math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return sizes


def fact(
    matrix: Matrix,
    chosen: Chosen,
    writer: Writer,
    constant_bytes: Mapping[str, int],
    stored: Mapping[str, int],
    weights: Weights,
    *,
    for_cpu: bool,
) -> QuantizedMatrix:
    """What became of a matrix, and why."""
    form = chosen.forms[matrix.name]
    bytes_after = stored.get(matrix.name) or writer.stored_bytes(matrix.name, form)
    note = matrix.refused or chosen.notes.get(matrix.name, "") or matrix.unfit
    if not note and form != "float" and arithmetic(form) == "float" and for_cpu:
        note = _why_in_float(matrix)
    operators = sorted({use.operator for use in matrix.uses})
    if not note and form == "static" and any(operator in RECURRENT for operator in operators):
        note = (
            f"{' and '.join(operators)} as plain operations for every position: few NPUs have it as an operator of "
            "integers"
        )
    if constant_bytes.get(matrix.name):
        form, bytes_after = "static", constant_bytes[matrix.name]
        note = f"a constant of {' and '.join(operators)}, rounded as an activation"
    return QuantizedMatrix(
        name=matrix.name,
        operators=tuple(dict.fromkeys(use.operator for use in matrix.uses)),
        shape=matrix.shape,
        form=form,
        bytes_before=matrix.bytes,
        bytes_after=bytes_after,
        second_order=weights.listed(matrix.name, form),
        errors={str(key): value for key, value in chosen.alone.get(matrix.name, {}).items()},
        metric_drop=chosen.metric_alone.get(matrix.name),
        note=note,
    )


def _why_in_float(matrix: Matrix) -> str:
    """Why the product of a matrix in fewer bits is one of floats, if no error is the reason."""
    if matrix.is_product:
        return matrix.slower_as_integers
    what = "a table of rows" if matrix.is_table else ", ".join(dict.fromkeys(use.operator for use in matrix.uses))
    return f"{what}: no form of integers"
