"""The scales of weights in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from compressor.onnx_graphs.unrolling.recurrent import Piece
    from exporters.quantization.matrices import Matrix
    from exporters.quantization.npu.ranges import Calibration
    from exporters.quantization.weights import Weights


@dataclass(frozen=True)
class Scales:
    """How a weight is rounded: w is about scale * (q - zero)."""

    scale: NDArray[np.float32]
    """Of the weight's number of axes, of size 1 for an axis without scales of its own."""
    axis: int | None
    """The axis that has, in the weight's own shape; None if there is one scale for all."""
    kind: str = "int8"
    zero: int = 0

    def override(self) -> list[dict[str, Any]]:
        """As the quantizer takes it."""
        from onnxruntime.quantization import QuantType

        kind = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8, "uint16": QuantType.QUInt16}[self.kind]
        zero = np.array(self.zero, self.kind)
        scales = [np.array(scale, np.float32) for scale in self.scale.ravel()]
        every = [{"quant_type": kind, "scale": scale, "zero_point": zero} for scale in scales]
        if self.axis is not None:
            every[0]["axis"] = self.axis
        return every


class WeightScales:
    """The scales of all matrices of a graph."""

    def __init__(self, weights: Weights, matrices: Mapping[str, Matrix], calibration: Calibration) -> None:
        """Nothing is computed yet."""
        self._weights, self._matrices, self._calibration = weights, matrices, calibration

    def of(self, name: str) -> Scales:
        """Those of a matrix."""
        array, matrix = self._weights.arrays[name], self._matrices[name]
        kind = self._calibration.activations if matrix.is_table else "int8"
        channels = matrix.channels if self._calibration.per_channel and not matrix.is_table else ()
        over = tuple(axis for axis in range(array.ndim) if axis not in channels)
        largest = np.abs(array).max(axis=over, keepdims=True).astype(np.float32)
        if kind == "uint16":
            return Scales(np.where(largest > 0, largest / 32767, 1).astype(np.float32), None, kind, 32768)
        scale = self._weights.low(name).scale if channels else np.where(largest > 0, largest / 127, 1)
        axis = channels[-1] if channels else None
        return Scales(scale.astype(np.float32), axis, kind, 0 if kind == "int8" else 128)

    def of_piece(self, name: str, piece: Piece) -> Scales:
        """Those of a part of a recurrent matrix, which is transposed."""
        whole = self.of(name)
        if whole.axis is None:
            return Scales(whole.scale.reshape(1, 1), None)
        return Scales(whole.scale[piece.direction, piece.rows].reshape(1, -1), 1)

    def values(self, name: str) -> NDArray[Any]:
        """The float values that the integers of a matrix stand for."""
        scales = self.of(name)
        if scales.axis is not None:
            return self._weights.low(name).weight
        limit = 32767 if scales.kind == "uint16" else 127
        array = self._weights.arrays[name]
        rounded: NDArray[Any] = np.clip(np.rint(array / scales.scale), -limit, limit) * scales.scale
        return rounded.astype(np.float32)

    def stored_bytes(self, name: str) -> int:
        """Bytes of a matrix in the file, scales included."""
        scales = self.of(name)
        return int(self._weights.arrays[name].size * (2 if scales.kind == "uint16" else 1) + 4 * scales.scale.size)
