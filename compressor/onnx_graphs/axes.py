"""The open axes of an ONNX file: their names, the sizes they get, and how they are fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

DEFAULT_LENGTH = 32
"""Size of an open axis that is not the batch, if none is given."""
_BATCH_NAMES = ("batch", "b", "n")


def is_batch(name: str) -> bool:
    """Whether an axis of this name counts samples."""
    return name.lower() in _BATCH_NAMES


def open_axes(proto: onnx.ModelProto) -> dict[str, int]:
    """Names of the open axes of the inputs, and the sizes that they get if none is given.

    An axis without a name counts as `INPUT.AXIS`.
    """
    sizes: dict[str, int] = {}
    for value in inputs(proto):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                name = dimension.dim_param or f"{value.name}.{axis}"
                sizes[name] = 1 if is_batch(name) else DEFAULT_LENGTH
    return sizes


def inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives, without weights that are listed among them."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def fix_axes(proto: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    """Give every open axis of the inputs its size, in place; shapes that follow from it are dropped."""
    for value in inputs(proto):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                dimension.dim_value = sizes[dimension.dim_param or f"{value.name}.{axis}"]
    for value in proto.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.Clear()
    del proto.graph.value_info[:]
