"""Finds the weights of a graph that could be stored in fewer bits, and says of all others why not."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from compressor import gates
from compressor.onnx_graphs import walk
from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx

Form = Literal[
    "float",
    "half",
    "weights",
    "weights2",
    "weights3",
    "weights4",
    "weights5",
    "weights6",
    "integer",
    "integer2",
    "integer3",
    "integer4",
    "integer5",
    "integer6",
    "int4",
    "static",
]
"""`float`: as it was. `half`: float16 in the file, float32 again in front of the operator. `weights`: the same with 8
bits. `integer`: 8 bits, and the product is one of integers, its other side rounded while it runs. Both with a number:
so many bits in the file, in blocks with a common scale, of which numbers or integers of 8 bits are made in front of
everything, which a runtime does once. `int4`: 4 bits in blocks, `MatMulNBits`. `static`: 8 bits, and everything around
the operator in integers of calibrated scales."""

SMALLEST = 256
"""Elements below which nothing is gained: the scales and nodes cost as much as is saved."""
SCAN_UNITS = {"RNN": 192, "GRU": 320}
"""From so many units on, the Scan of integers is at least as fast as the native node in float
(`benchmarks/precision.py --any-size`)."""
_INPUT, _STATE, _BIAS = 1, 2, 3
"""Places of W, R and B among the inputs of a recurrent node."""


@dataclass(frozen=True)
class Use:
    """One place where a weight is used."""

    operator: str
    place: int
    node: str
    """First output of the node, which names it."""
    plain: bool
    """The operator is used in a way for which there is a form of its own."""
    channels: tuple[int, ...] | None
    """The axes of the operator's outputs among those of the weight; None if it has no such form."""


@dataclass(frozen=True)
class Matrix:
    """A weight and what can be done with it."""

    name: str
    shape: tuple[int, ...]
    uses: tuple[Use, ...]
    channels: tuple[int, ...]
    """Axes whose every index has a scale of its own."""
    refused: str = ""
    """Why it stays float in any case."""
    unfit: str = ""
    """Why it cannot be in calibrated integers."""
    activations: int = 0
    """If the entry stands for operators without a matrix, whose shape is (): bytes of what they give, in float32."""

    @property
    def bytes(self) -> int:
        """In float32."""
        size = 4 if self.shape else 0
        for axis in self.shape:
            size *= axis
        return size

    @property
    def is_product(self) -> bool:
        """Every use is a matrix product, so that integers and 4 bits can be."""
        products = (*RECURRENT, "MatMul", "Gemm")
        return all(use.plain and use.operator in products and use.channels == self.channels for use in self.uses)

    @property
    def is_recurrent(self) -> bool:
        """A recurrent node uses it."""
        return any(use.operator in RECURRENT for use in self.uses)

    @property
    def slower_as_integers(self) -> str:
        """Why products of integers would take longer than the native node; empty if they would not."""
        for use in self.uses:
            cell, least = gates.BY_OPERATOR.get(use.operator), SCAN_UNITS.get(use.operator, 0)
            units = self.shape[1] // cell.count if cell is not None else 0
            if units < least:
                return f"a {use.operator} of {units} units is faster as it is than as a Scan of integers (from {least})"
        return ""

    @property
    def is_table(self) -> bool:
        """A table of which rows are looked up."""
        return any(use.operator == "Gather" for use in self.uses)


def find(proto: onnx.ModelProto, keep_float: Sequence[str] = (), smallest: int = SMALLEST) -> list[Matrix]:
    """Every float32 weight of two or more axes, in the order of the graph; vectors are not listed.

    Such of fewer than `smallest` numbers stay float.
    """
    import onnx

    sizes = {
        tensor.name: tuple(tensor.dims)
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1
    }
    uses: dict[str, list[Use]] = {}
    for node in walk.nodes(proto.graph):
        for place, name in enumerate(node.input):
            if name in sizes and not (node.op_type in RECURRENT and place == _BIAS):
                channels = _channels(node, place, sizes[name])
                plain = channels is not None and is_plain(node)
                uses.setdefault(name, []).append(Use(node.op_type, place, node.output[0], plain, channels))
    outputs = {value.name for value in proto.graph.output}
    return [_matrix(name, sizes[name], places, keep_float, name in outputs, smallest) for name, places in uses.items()]


def _matrix(
    name: str, shape: tuple[int, ...], uses: list[Use], keep_float: Iterable[str], is_output: bool, smallest: int
) -> Matrix:
    channels = next((use.channels for use in uses if use.channels is not None), None)
    refused = ""
    elements = 1
    for axis in shape:
        elements *= axis
    if is_output:
        refused = "it is an output of the graph"
    elif channels is None:
        operators = ", ".join(dict.fromkeys(f"`{use.operator}`" for use in uses))
        refused = f"it is used by {operators}, which have no form in fewer bits"
    elif elements < smallest:
        refused = f"{elements} numbers: scales and nodes would cost what is saved"
    else:
        pattern = next((pattern for pattern in keep_float if fnmatchcase(name, pattern)), None)
        refused = f"`keep_float: {pattern}`" if pattern else ""
    return Matrix(name, shape, tuple(uses), channels or (), refused)


def is_plain(node: onnx.NodeProto) -> bool:
    """The forms that the exporter writes: a form of ours takes the defaults of these attributes for granted."""
    import onnx

    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Gemm":
        scaled = attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0
        return not scaled and not attributes.get("transA", 0)
    if node.op_type == "Gather":
        return bool(attributes.get("axis", 0) == 0)
    if node.op_type in RECURRENT:
        known = {"hidden_size", "direction", "linear_before_reset", "activations", "layout"}
        reset = node.op_type != "GRU" or attributes.get("linear_before_reset", 0) == 1
        usual = node.op_type == "RNN" or "activations" not in attributes
        return set(attributes) <= known and not attributes.get("layout", 0) and reset and usual and len(node.input) < 8
    return True


def _channels(node: onnx.NodeProto, place: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    operator = walk.operator(node)
    if operator in RECURRENT and place in (_INPUT, _STATE):
        return (0, 1)
    if operator == "MatMul" and place == 1 and len(shape) == 2:
        return (1,)
    if operator == "Gemm" and place == 1:
        return (0,) if any(item.name == "transB" and item.i for item in node.attribute) else (1,)
    if (operator == "Gather" and place == 0) or (operator == "Conv" and place == 1):
        return (0,)
    return None


def partners(matrices: Sequence[Matrix]) -> Mapping[str, str]:
    """Name of the input matrix of a recurrent node -> name of its recurrent one."""
    states = {
        use.node: matrix.name
        for matrix in matrices
        for use in matrix.uses
        if use.operator in RECURRENT and use.place == _STATE
    }
    return {
        matrix.name: states[use.node]
        for matrix in matrices
        for use in matrix.uses
        if use.operator in RECURRENT and use.place == _INPUT and use.node in states
    }
