"""What a file says of a node: ranks, types, constants and attributes, by which a target takes it or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.onnx_graphs import walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    Shape = tuple[int | None, ...]
    """None for an open size."""


@dataclass(frozen=True)
class GraphFacts:
    """What is known of the values of a graph."""

    shapes: Mapping[str, Shape]
    types: Mapping[str, int]
    """Element types, as `onnx.TensorProto` numbers them."""
    constants: Mapping[str, onnx.TensorProto]
    read: frozenset[str]
    """Values that a node reads, or that the graph gives."""
    rounded: frozenset[str]
    """What `DequantizeLinear` makes of a constant: a weight in integers, of a node that is computed in them."""

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> GraphFacts:
        """Of a graph, with what shape inference adds."""
        import onnx

        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        values = [
            value
            for body in walk.graphs(graph)
            for value in (*body.input, *body.output, *body.value_info)
            if value.type.HasField("tensor_type")
        ]
        weights = {tensor.name: tensor for body in walk.graphs(graph) for tensor in body.initializer}
        weights |= {
            node.output[0]: item.t
            for node in walk.nodes(graph)
            if node.op_type == "Constant"
            for item in node.attribute
            if item.name == "value"
        }
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        shapes = {value.name: _shape(value) for value in values if value.type.tensor_type.HasField("shape")}
        read = {name for node in walk.nodes(graph) for name in node.input if name}
        return cls(
            shapes={**shapes, **{name: tuple(tensor.dims) for name, tensor in weights.items()}},
            types={**types, **{name: tensor.data_type for name, tensor in weights.items()}},
            constants=weights,
            read=frozenset(read | {value.name for value in graph.output}),
            rounded=frozenset(
                node.output[0]
                for node in walk.nodes(graph)
                if node.op_type == "DequantizeLinear" and node.input[0] in weights
            ),
        )


def _shape(value: onnx.ValueInfoProto) -> Shape:
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)


@dataclass(frozen=True)
class NodeFacts:
    """One node and its graph."""

    node: onnx.NodeProto
    graph: GraphFacts

    def name(self, place: int) -> str:
        """Of an input; empty if it is left out."""
        return self.node.input[place] if place < len(self.node.input) else ""

    def shape(self, place: int) -> Shape | None:
        """Of an input; None if it is not known."""
        return self.graph.shapes.get(self.name(place))

    def rank(self, place: int) -> int | None:
        """Number of axes of an input; None if it is not known."""
        shape = self.shape(place)
        return None if shape is None else len(shape)

    def type(self, place: int) -> int | None:
        """Element type of an input; None if it is not known."""
        return self.graph.types.get(self.name(place))

    def values(self, place: int) -> NDArray[Any] | None:
        """A constant input; None if it is left out or computed."""
        from onnx import numpy_helper

        tensor = self.graph.constants.get(self.name(place))
        return None if tensor is None else numpy_helper.to_array(tensor)

    def is_computed(self, place: int) -> bool:
        """Whether an input is given and is not constant."""
        return bool(self.name(place)) and self.name(place) not in self.graph.constants

    def is_rounded(self, place: int) -> bool:
        """Whether an input is a constant in integers with a scale."""
        return self.name(place) in self.graph.rounded

    def output_is_read(self, place: int) -> bool:
        """Whether anything reads an output."""
        return place < len(self.node.output) and self.node.output[place] in self.graph.read

    def attribute(self, name: str, default: Any) -> Any:
        """The value of an attribute; text as `str`."""
        import onnx

        for item in self.node.attribute:
            if item.name == name:
                value = onnx.helper.get_attribute_value(item)
                return value.decode() if isinstance(value, bytes) else value
        return default
