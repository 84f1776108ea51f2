"""Builds nodes of a graph one by one, and matrix products by weights of fewer bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.quantization.rounding import as_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from exporters.quantization.rounding import Blocks, Rounded

DOMAIN = "com.microsoft"
"""Operators of ONNX Runtime itself."""
_PREFIX = "quantized"


class Names:
    """Names that nothing else in a file has."""

    def __init__(self, taken: set[str]) -> None:
        """`taken` are those of the file so far."""
        self._taken = taken

    def new(self, stem: str) -> str:
        """`stem`, or `stem` and a number."""
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}.{number}"
        self._taken.add(name)
        return name


class Nodes:
    """Collects the nodes and initializers of a graph or of a body."""

    def __init__(self, names: Names) -> None:
        """Nothing is in it."""
        self.names = names
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __call__(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: int | Sequence[str] = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """Add a node; gives the name of its output, or a list of names where there are several.

        `outputs` is their number, or their names where other nodes know them.
        """
        import onnx

        if isinstance(outputs, int):
            outputs = [self.names.new(f"{_PREFIX}.{operator}") for _ in range(outputs)]
        self.nodes.append(onnx.helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs[0] if len(outputs) == 1 else list(outputs)

    def constant(self, array: NDArray[Any], stem: str = f"{_PREFIX}.constant") -> str:
        """Add an initializer; gives its name."""
        import onnx

        name = self.names.new(stem)
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def scale(self, array: NDArray[Any], stem: str) -> str:
        """Scales in float32, stored as float16 where that holds them exactly."""
        stored = as_stored(array)
        name = self.constant(stored, stem)
        return name if stored.dtype == np.float32 else str(self("Cast", [name], to=1))

    def integers(self, *numbers: int) -> str:
        """An initializer of int64, such as an axis."""
        return self.constant(np.array(numbers, np.int64))


def integer_product(nodes: Nodes, x: str, weight: Rounded, name: str, bias: NDArray[Any] | None) -> str:
    """X @ weight + bias with x in 8 bits at one scale for all of it: q(x) and `weight` are multiplied as integers.

    Args:
        nodes: Where the operators go.
        x: (..., K).
        weight: (K, N), a scale for each of its columns.
        name: Of the weight.
        bias: (N,).
    """
    low, scale, zero = nodes("DynamicQuantizeLinear", [x], 3)
    total = nodes("MatMulInteger", [low, nodes.constant(weight.values, f"{name}.int8"), zero])
    scales = nodes("Mul", [scale, nodes.constant(weight.scale.reshape(-1), f"{name}.scale")])
    product = nodes("Mul", [nodes("Cast", [total], to=1), scales])
    return _plus(nodes, product, bias, name)


def block_product(
    nodes: Nodes, x: str, weight: Blocks, scale: str, name: str, bias: NDArray[Any] | None, *, exact: bool
) -> str:
    """X @ weight + bias with a weight in 4 bits; x is rounded to 8 bits too unless `exact`, which is slower.

    `scale` is a value of the graph, in the order of the blocks. ONNX Runtime makes a constant of it when it loads the
    file, also for the body of a Scan, if it stands outside of that.
    """
    packed = weight.packed
    inputs = [x, nodes.constant(packed, f"{name}.int4"), scale]
    product = nodes(
        "MatMulNBits",
        inputs,
        domain=DOMAIN,
        K=weight.rows,
        N=packed.shape[0],
        bits=4,
        block_size=weight.values.shape[2],
        accuracy_level=0 if exact else 4,
    )
    return _plus(nodes, product, bias, name)


def float_product(nodes: Nodes, x: str, weight: str, name: str, bias: NDArray[Any] | None) -> str:
    """X @ weight + bias in float; `weight` is a value of the graph (K, N)."""
    return _plus(nodes, nodes("MatMul", [x, weight]), bias, name)


def _plus(nodes: Nodes, product: str, bias: NDArray[Any] | None, name: str) -> str:
    if bias is None:
        return product
    added: str = nodes("Add", [product, nodes.constant(bias.astype(np.float32), f"{name}.bias")])
    return added
