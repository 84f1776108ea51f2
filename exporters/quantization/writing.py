"""What writes a graph with its matrices in their forms."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx

from exporters.passes import external_data
from exporters.quantization.rewrite import rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form
    from exporters.quantization.weights import Weights


_numbers = itertools.count()
"""Of the files of weights: several graphs share a folder, and a file that a session has mapped must not change."""


def file_of_weights(folder: Path) -> Path:
    """A new one, for a draft in a folder."""
    return folder / f"weights{next(_numbers)}.data"


class Writer(Protocol):
    """Writes a graph with its matrices in their forms."""

    def draft(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """The graph, a draft in the folder of trials: its float weights may lie in a file there.

        What is not named stays float. `exact`: with activations left in float.
        """

    def restored(self, forms: Mapping[str, Form]) -> onnx.ModelProto:
        """The float graph with its matrices rounded in their values only; a draft."""

    def values(self, name: str, form: Form) -> NDArray[Any]:
        """The float values that a matrix in a form stands for, in its own shape."""

    def stored_bytes(self, name: str, form: Form) -> int:
        """Bytes of a matrix in the file, scales included."""


class Rewriter:
    """A `Writer` of forms that need no calibration."""

    def __init__(self, proto: onnx.ModelProto, weights: Weights, folder: Path, *, by_row: bool = False) -> None:
        """`proto` is the float graph, `folder` that of trials; for `by_row` see `rewrite`."""
        self._proto, self._weights, self._folder, self._by_row = proto, weights, folder, by_row
        self._light = external_data.draft(proto, file_of_weights(folder))
        self.values, self.stored_bytes = weights.restored, weights.stored_bytes

    def draft(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """See `rewrite`; all float weights lie in one file, which is written once."""
        return rewrite(self._light, self._weights, forms, exact=exact, by_row=self._by_row, folder=self._folder)

    def restored(self, forms: Mapping[str, Form]) -> onnx.ModelProto:
        """Its weights lie in a file of its own."""

        def value(tensor: onnx.TensorProto) -> NDArray[Any] | None:
            form = forms.get(tensor.name, "float")
            return None if form == "float" else self._weights.restored(tensor.name, form)

        return external_data.draft(self._proto, file_of_weights(self._folder), value)


def restored(proto: onnx.ModelProto, writer: Writer, forms: Mapping[str, Form]) -> onnx.ModelProto:
    """The same graph with the same nodes, its matrices rounded in their values only."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for tensor in model.graph.initializer:
        if forms.get(tensor.name, "float") != "float":
            array = writer.values(tensor.name, forms[tensor.name])
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    return model
