"""Conditions under which a target takes an operator of its table, as the runtimes publish them in words.

Each rule gives why a node is not taken, in the file's own terms; empty if it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compressor.onnx_graphs.node_facts import NodeFacts

    Rule = Callable[[NodeFacts], str]

COMPUTED_WEIGHT = "its second input is not constant"
"""A reason of refusals."""
_PLACES = {0: "first", 1: "second", 2: "third"}
_FLOAT, _INT32, _BOOL, _FLOAT16 = 1, 6, 9, 10
_UNKNOWN_TO_NNAPI = {7: "int64", _BOOL: "bool", _FLOAT16: "float16", 11: "float64"}


def constant(what: str, *places: int) -> Rule:
    """These inputs must be constant, if they are given."""

    def rule(node: NodeFacts) -> str:
        return f"its {what} not constant" if any(node.is_computed(place) for place in places) else ""

    return rule


def constant_or_rounded(what: str, *places: int) -> Rule:
    """The same for providers that read a node with its `DequantizeLinear` nodes as one: a rounded constant is one."""

    def rule(node: NodeFacts) -> str:
        computed = any(node.is_computed(place) and not node.is_rounded(place) for place in places)
        return f"its {what} not constant" if computed else ""

    return rule


def rank(what: str, allowed: tuple[int, ...], place: int = 0) -> Rule:
    """An input must have so many axes."""

    def rule(node: NodeFacts) -> str:
        axes = node.rank(place)
        return "" if axes is None or axes in allowed else f"{what}, and its {_PLACES[place]} input has {axes} axes"

    return rule


def attribute(name: str, allowed: tuple[object, ...], default: object) -> Rule:
    """An attribute must have one of these values."""

    def rule(node: NodeFacts) -> str:
        value = node.attribute(name, default)
        value = tuple(value) if isinstance(value, list) else value
        words = " or ".join(str(item) for item in allowed)
        return "" if value in allowed else f"its `{name}` is {value}, and only {words} is taken"

    return rule


def left_out(name: str) -> Rule:
    """An attribute must not be given."""
    return lambda node: f"its `{name}` is given" if node.attribute(name, None) is not None else ""


def types(what: str, allowed: tuple[int, ...], *places: int) -> Rule:
    """Inputs must have one of these element types."""

    def rule(node: NodeFacts) -> str:
        found = [node.type(place) for place in places]
        return "" if all(kind is None or kind in allowed for kind in found) else f"only {what} is taken"

    return rule


def _pads(node: NodeFacts) -> str:
    pads = node.values(1)
    return "its pads are negative" if pads is not None and bool((pads < 0).any()) else ""


def _even_split(node: NodeFacts) -> str:
    sizes, shape, count = node.values(1), node.shape(0), len(node.node.output)
    if sizes is not None:
        return "" if len(set(sizes.tolist())) == 1 else "its parts are not of one size"
    axis = node.attribute("axis", 0)
    size = None if shape is None else shape[axis]
    return "its parts are not of one size" if size is not None and size % count else ""


def _indices(node: NodeFacts) -> str:
    return "its indices are computed and not int32" if node.is_computed(1) and node.type(1) != _INT32 else ""


def _transposed_or_constant(node: NodeFacts) -> str:
    if node.is_computed(1) and not node.is_rounded(1) and not node.attribute("transB", 0):
        return "its second input is computed and not transposed (transB)"
    return ""


def _last_axis(node: NodeFacts) -> str:
    axis, axes = node.attribute("axis", -1), node.rank(0)
    return "" if axes is None or axis in (-1, axes - 1) else "it is not along the last axis"


def nnapi_type(node: NodeFacts) -> str:
    """NNAPI knows float32, int32 and rounded 8 bits."""
    word = _UNKNOWN_TO_NNAPI.get(node.type(0) or 0)
    return "" if word is None or not node.is_computed(0) else f"its first input is {word}, which NNAPI does not have"


_POOL_2D = (rank("only pooling over two axes is taken", (4,)),)
_WEIGHTS = constant("weight or bias is", 1, 2)
_SCALES = (constant("scales or zero points are", 1, 2),)
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
NNAPI: Mapping[str, tuple[Rule, ...]] = {
    **dict.fromkeys(_POOLS, _POOL_2D),
    "Conv": (rank("only 2D convolutions are taken", (4,)), constant_or_rounded("weight or bias is", 1, 2)),
    "DepthToSpace": (attribute("mode", ("DCR",), "DCR"),),
    "DequantizeLinear": _SCALES,
    "Gather": (_indices,),
    "Gemm": (_transposed_or_constant,),
    "Pad": (attribute("mode", ("constant",), "constant"), constant("pads or value are", 1, 2), _pads),
    "QLinearConv": (
        rank("only 2D convolutions are taken", (4,)),
        constant("weight, bias, scales or zero points are", 1, 2, 3, 4, 5, 6, 7, 8),
    ),
    "QLinearMatMul": (constant("scales or zero points are", 1, 2, 4, 5, 6, 7),),
    "QuantizeLinear": _SCALES,
    "Resize": (rank("only 2D resizing is taken", (4,)),),
    "Split": (constant("sizes are", 1), _even_split),
    "Squeeze": (constant("axes are", 1),),
    "Unsqueeze": (constant("axes are", 1),),
    "com.microsoft:QLinearAdd": (constant("scales or zero points are", 1, 2, 4, 5, 6, 7),),
    "com.microsoft:QLinearAveragePool": (*_POOL_2D, constant("scales or zero points are", 1, 2, 3, 4)),
    "com.microsoft:QLinearSigmoid": (constant("scales or zero points are", 1, 2, 3, 4),),
}
"""By the table of ONNX Runtime's NNAPI provider; a test compares its rows with these."""
COREML: Mapping[str, tuple[Rule, ...]] = {
    **dict.fromkeys(_POOLS, _POOL_2D),
    "And": (types("bool", (_BOOL,), 0, 1),),
    "Conv": (rank("only 1D and 2D convolutions are taken", (3, 4)), constant("bias is", 2)),
    "ConvTranspose": (
        _WEIGHTS,
        attribute("auto_pad", ("NOTSET", "VALID"), "NOTSET"),
        left_out("output_shape"),
        lambda node: "its `output_padding` is given" if any(node.attribute("output_padding", ())) else "",
    ),
    "GatherND": (attribute("batch_dims", (0,), 0),),
    "Gemm": (constant("second input is", 1),),
    "GridSample": (rank("only 4 axes are taken", (4,)), attribute("mode", ("linear", "bilinear"), "linear")),
    "Pow": (types("float32", (_FLOAT,), 0, 1),),
    "Slice": (constant("bounds, axes or steps are", 1, 2, 3, 4),),
    "Split": (constant("sizes are", 1),),
    "Tile": (rank("at most 5 axes are taken", (0, 1, 2, 3, 4, 5)),),
    "Where": (types("float32 or float16", (_FLOAT, _FLOAT16), 1, 2),),
}
"""By the table of ONNX Runtime's Core ML provider (MLProgram)."""
XNNPACK: Mapping[str, tuple[Rule, ...]] = {
    "Conv": (rank("only 1D and 2D convolutions are taken", (3, 4)), _WEIGHTS),
    "ConvTranspose": (rank("only 2D convolutions are taken", (4,)), _WEIGHTS),
    "Gemm": (constant("second input is", 1),),
    "MatMul": (constant("second input is", 1), rank("only matrices are taken", (2,), 1)),
    "Softmax": (_last_axis,),
}
"""By the kernels of ONNX Runtime's XNNPACK provider."""
