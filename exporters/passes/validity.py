"""Checks that a graph is valid ONNX and needs no other operators than it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from compressor.errors import ExportError
from compressor.onnx_graphs import walk
from exporters.passes import external_data

if TYPE_CHECKING:
    from collections.abc import Mapping


def check(proto: onnx.ModelProto, opset: int, domains: Mapping[str, int] | None = None) -> None:
    """Run the ONNX checker and strict shape inference; raises `ExportError` with what they found.

    Args:
        proto: The file.
        opset: Version of the standard operators.
        domains: Other operator sets that it may use, and their versions; nothing but these.
    """
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    used = {node.domain for node in walk.nodes(proto.graph)} - set(walk.STANDARD)
    allowed = {("", opset), *(domains or {}).items()}
    if versions.get("") != opset or set(versions.items()) - allowed or used - set(versions):
        raise ExportError(
            f"the file needs the operator sets {versions}, not opset {opset} alone",
            hint="try another opset, such as 18",
        )
    try:
        with external_data.hollow(proto) as (checked, path):
            onnx.checker.check_model(checked if path is None else str(path), full_check=True)
            onnx.shape_inference.infer_shapes(checked, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ExportError(
            f"the exported graph is not valid ONNX: {first}", hint="try another opset, such as 18"
        ) from error
