"""Short names for a quantized graph, whose names take more bytes than its weights."""

from __future__ import annotations

import onnx


def compact(quantized: onnx.ModelProto, kept: set[str]) -> onnx.ModelProto:
    """A copy with short names for values and none for nodes, and with equal initializers merged.

    Args:
        quantized: The graph.
        kept: Names that stay.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(quantized)
    names: dict[str, str] = {"": ""}

    def short(name: str) -> str:
        keep = name in kept or name.removesuffix("_quantized") in kept
        return names.setdefault(name, name if keep else f"t{len(names):x}")

    shared: dict[bytes, str] = {}
    tensors = []
    for tensor in proto.graph.initializer:
        old, tensor.name = tensor.name, ""
        content = tensor.SerializeToString(deterministic=True)
        first = content not in shared
        names[old] = tensor.name = shared.setdefault(content, short(old))
        if first:
            tensors.append(tensor)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(tensors)
    for node in proto.graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    return proto
