"""`precision: float16`: weights in half precision, and computation too if that runs.

Recurrent nodes compute in float32 behind casts, and their weights are in half as well: not every phone runtime takes
such nodes in half. So do operators that ONNX has no half form of, and each pair of a MatMul and a Transpose
in front of it that moves an axis of batches: at its default level ONNX Runtime 1.32 makes one node of the two, and at
that one in half precision it dies (SIGSEGV while loading, in its transformer for convolutions). The pair stands behind
every recurrent layer whose batch comes first, and is why half-precision recurrent models crash there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.onnx_graphs import walk
from exporters.passes import external_data

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_RECURRENT = ("RNN", "GRU", "LSTM")
_DTYPE_ATTRIBUTES = {"Cast": "to", "EyeLike": "dtype"}
_LARGEST = 65504.0
"""The largest finite half."""
_SMALLEST = 2.0**-24
"""The smallest that is not zero."""
_HALF, _FLOAT = ".half", ".float"
ATOL = 5e-3
RTOL = 1e-2
"""A half has 11 bits: each result is off by up to 2**-11 = 4.9e-4 of itself. Ten to twenty roundings that add up, one
behind the other, are allowed for: the depth of a small model, since those of a sum over units partly cancel."""


def convert(proto: onnx.ModelProto, *, float_io: bool) -> None:
    """Make a checked float32 graph a half-precision one, in place.

    Args:
        proto: The model; every name in it stands for one value, also in the bodies of control flow.
        float_io: Inputs and outputs stay float32, and are cast inside.
    """
    import onnx

    opset = walk.opset(proto)
    with external_data.hollow(proto) as (light, _):
        floats = _float_names(onnx.shape_inference.infer_shapes(light, data_prop=True).graph)
    _Conversion(opset, floats, float_io).graph(proto.graph, outermost=True)


def _float_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the float32 values of a graph and of the bodies in it."""
    import onnx

    names: set[str] = set()
    for each in walk.graphs(graph):
        names |= {tensor.name for tensor in each.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
        for value in (*each.input, *each.output, *each.value_info):
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                names.add(value.name)
    return names


class _Conversion:
    """What is the same for a graph and the bodies in it."""

    def __init__(self, opset: int, floats: set[str], float_io: bool) -> None:
        self._opset = opset
        self._floats = floats
        self._float_io = float_io
        self._crashing: set[str] = set()
        """Outputs of the pairs of Transpose and MatMul that ONNX Runtime cannot load in half."""
        self._kept: set[str] = set()
        """Inputs and outputs of the model that stay float32; what reads them in half reads another value."""

    def graph(self, graph: onnx.GraphProto, *, outermost: bool) -> None:
        """Convert a graph; the casts of its inputs come first, those of its outputs last."""
        import onnx

        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                _halve(tensor)
        nodes = []
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                if not (outermost and self._float_io):
                    value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
                elif value.name not in self._kept:
                    self._kept.add(value.name)
        if outermost:
            nodes = [self._cast(v.name, v.name + _HALF, half=True) for v in graph.input if v.name in self._kept]
        self._crashing |= _crashing(graph)
        as_float: dict[str, str] = {}
        for node in graph.node:
            nodes += self._node(node, as_float)
        used = {name for node in nodes for name in walk.reads(node)} | {value.name for value in graph.output}
        del graph.node[:]
        graph.node.extend(node for node in nodes if node.op_type != "Cast" or used & set(node.output))

    def _node(self, node: onnx.NodeProto, as_float: dict[str, str]) -> list[onnx.NodeProto]:
        """A node with what has to stand in front of and behind it; `as_float` holds what a graph has in float32."""
        before: list[onnx.NodeProto] = []
        behind: list[onnx.NodeProto] = []
        needs_float = self._needs_float(node)
        if not needs_float:
            self._attributes(node)
        for index, name in enumerate(node.input):
            if not needs_float:
                node.input[index] = name + _HALF if name in self._kept else name
            elif name in self._floats and name not in self._kept:
                if name not in as_float:
                    as_float[name] = name + _FLOAT
                    before.append(self._cast(name, name + _FLOAT, half=False))
                node.input[index] = as_float[name]
        for index, name in enumerate(node.output):
            if name in self._kept:
                computed, cast = (name, name + _HALF) if needs_float else (name + _HALF, name)
                node.output[index] = computed
                behind.append(self._cast(computed, cast, half=needs_float))
            elif needs_float and name in self._floats:
                node.output[index] = as_float[name] = name + _FLOAT
                behind.append(self._cast(name + _FLOAT, name, half=True))
        return [*before, node, *behind]

    def _needs_float(self, node: onnx.NodeProto) -> bool:
        """Whether a node is to compute in float32: a recurrent one, or one of which ONNX has no half form."""
        import onnx

        if node.op_type in _RECURRENT or self._crashing & set(node.output):
            return True
        if not any(name in self._floats for name in (*node.input, *node.output)):
            return False
        schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
        pairs = ((node.input, schema.inputs), (node.output, schema.outputs))
        for names, formal in pairs:
            for index, name in enumerate(names):
                if name in self._floats and formal:
                    kinds = formal[min(index, len(formal) - 1)].type_str
                    if "tensor(float16)" not in allowed.get(kinds, [kinds]):
                        return True
        return False

    def _attributes(self, node: onnx.NodeProto) -> None:
        """Constants, targets of casts and bodies in half."""
        import numpy as np
        import onnx

        if node.op_type == "ConstantOfShape" and not node.attribute:  # float32 zeros by default
            zero = onnx.numpy_helper.from_array(np.zeros(1, np.float16))
            node.attribute.append(onnx.helper.make_attribute("value", zero))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                self.graph(attribute.g, outermost=False)
            elif attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.FLOAT:
                _halve(attribute.t)
            elif attribute.name == _DTYPE_ATTRIBUTES.get(node.op_type) and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                values: Any = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = onnx.numpy_helper.from_array(as_half(np.array(values, dtype=np.float32)))
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))

    @staticmethod
    def _cast(source: str, target: str, *, half: bool) -> onnx.NodeProto:
        import onnx

        to = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
        return onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)


def _crashing(graph: onnx.GraphProto) -> set[str]:
    """Outputs of each Transpose that moves an axis of batches, and of each MatMul that reads one."""
    moving = set()
    for node in graph.node:
        if node.op_type == "Transpose":
            order = [list(attribute.ints) for attribute in node.attribute]
            if order and order[0][:-2] != list(range(len(order[0]) - 2)):
                moving.add(node.output[0])
    pairs = [node for node in graph.node if node.op_type == "MatMul" and moving & set(node.input)]
    return {name for node in pairs for name in (*node.output, *(moving & set(node.input)))}


def _halve(tensor: onnx.TensorProto) -> None:
    import onnx

    tensor.CopyFrom(onnx.numpy_helper.from_array(as_half(onnx.numpy_helper.to_array(tensor)), tensor.name))


def as_half(array: NDArray[Any]) -> NDArray[Any]:
    """An array of floats in half precision.

    Finite numbers stay finite (a mask of -1e9 becomes -65504), and a single number that is not zero does not become
    zero, since it may guard a division.
    """
    import numpy as np

    finite = np.isfinite(array)
    clipped = np.where(finite, np.clip(array, -_LARGEST, _LARGEST), array)
    if array.size == 1 and array.any():
        clipped = np.where(np.abs(clipped) < _SMALLEST, np.copysign(_SMALLEST, clipped), clipped)
    return clipped.astype(np.float16)
