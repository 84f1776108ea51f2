"""What writes a graph with its matrices in their forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx

from exporters.quantization.rewrite import rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form
    from exporters.quantization.weights import Weights


class Writer(Protocol):
    """Writes a graph with its matrices in their forms."""

    def write(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """The graph; what is not named stays float. `exact`: with activations left in float."""

    def values(self, name: str, form: Form) -> NDArray[Any]:
        """The float values that a matrix in a form stands for, in its own shape."""

    def stored_bytes(self, name: str, form: Form) -> int:
        """Bytes of a matrix in the file, scales included."""


class Rewriter:
    """A `Writer` of forms that need no calibration."""

    def __init__(self, proto: onnx.ModelProto, weights: Weights, *, by_row: bool = False) -> None:
        """`proto` is the float graph; for `by_row` see `rewrite`."""
        self._proto, self._weights, self._by_row = proto, weights, by_row
        self.values, self.stored_bytes = weights.restored, weights.stored_bytes

    def write(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """See `rewrite`."""
        return rewrite(self._proto, self._weights, forms, exact=exact, by_row=self._by_row)


def restored(proto: onnx.ModelProto, writer: Writer, forms: Mapping[str, Form]) -> onnx.ModelProto:
    """The same graph with the same nodes, its matrices rounded in their values only."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for tensor in model.graph.initializer:
        if forms.get(tensor.name, "float") != "float":
            array = writer.values(tensor.name, forms[tensor.name])
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    return model
