"""Facts about graphs and operators that several steps need."""

from __future__ import annotations

import onnx

from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT

MOVES = frozenset([
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze"
])  # fmt: skip
"""What only moves numbers, so that its output has the scale of its input."""
LEFT_OUT = frozenset(
    {*RECURRENT, "Cast", "Constant", "DequantizeLinear", "If", "Loop", "QuantizeLinear", "Scan", "Shape"}
)
"""What is never in integers."""


def inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the shapes of all values."""
    with_shapes: onnx.ModelProto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return with_shapes


def name_nodes(proto: onnx.ModelProto, stem: str) -> None:
    """Give every node a name of its own, in place."""
    seen: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{stem}.{index}"
        seen.add(node.name)
