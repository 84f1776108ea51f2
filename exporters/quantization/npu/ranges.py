"""The ranges of activations, calibrated on data."""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from compressor.errors import ExportError
from compressor.onnx_graphs import walk
from exporters.quantization.npu.graphs import MOVES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_SAME_RANGE = frozenset(["Expand", "GatherElements", "GatherND", "Identity", "Tile"])
"""Operators that move numbers and of which the quantizer does not know by itself that the range stays."""
_BINS = 512
"""Of histograms for `entropy`; the default is as many as there are integers, which leaves one range to choose from."""
_MASKED = -1e3
"""A number below this one in front of a Softmax stands for a position that is masked."""
_DEEPEST = 32
"""Nodes between a Softmax and the scores that are masked."""
_BELOW = 10.0
"""How far below the smallest score a masked one is put: its share of a Softmax is at most e^-10 of that one's."""


@dataclass(frozen=True)
class Calibration:
    """How the scales of activations are found."""

    method: str
    """`minmax`, `percentile` or `entropy`."""
    activations: str
    """`uint8` or `uint16`."""
    per_channel: bool
    """A scale for each output of a matrix; else one for a matrix."""


class Reader:
    """Gives calibration data to onnxruntime's calibrators."""

    def __init__(self, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """`feeds` are inputs, one call each."""
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """The inputs of the next call."""
        return next(self._feeds, None)


def calibrate(
    proto: onnx.ModelProto, calibration: Calibration, feeds: Sequence[Mapping[str, NDArray[Any]]], folder: Path
) -> dict[str, Any]:
    """The range of every float tensor, as onnxruntime's `TensorData`."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    source = folder / "calibrated.onnx"
    onnx.save(proto, source)
    method = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[calibration.method]
    try:
        with quiet():
            calibrator = create_calibrator(
                source,
                None,
                str(folder / "augmented.onnx"),
                calibrate_method=method,
                extra_options={"symmetric": False, **({"num_bins": _BINS} if calibration.method == "entropy" else {})},
            )
            calibrator.collect_data(Reader(feeds))
            ranges = calibrator.compute_data()
    except Exception as error:  # of ONNX Runtime and numpy, which have no common base
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            f"the calibration by `{calibration.method}` failed: {why}", hint="use `calibration: minmax`"
        ) from error
    for name, data in ranges.items():
        low, high = (float(np.min(edge)) for edge in data.range_value)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ExportError(
                f"`{name}` is not finite on the calibration data ({low:g} to {high:g})",
                hint="look for NaN or infinity in the task's `batches`, and for a division by zero in the model",
            )
    return dict(ranges.items())


def unified(ranges: dict[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    """The ranges, with one for all positions of what is the same value at each of them.

    A state then has one scale, as in a recurrent operator; with one for each position every position would also have
    biases of its own, since these have the product of the scales of both sides.
    """
    from onnxruntime.quantization.calibrate import TensorData

    names = defaultdict(list)
    for name, role in roles.items():
        names[role].append(name)
    merged = dict(ranges)
    for group in names.values():
        known = [ranges[name].range_value for name in group if name in ranges]
        if known:
            edges = {"lowest": np.float32(min(np.min(low) for low, _ in known))}
            edges["highest"] = np.float32(max(np.max(high) for _, high in known))
            merged |= dict.fromkeys(group, TensorData(**edges))
    return merged


def unmasked(proto: onnx.ModelProto, ranges: dict[str, Any]) -> dict[str, Any]:
    """The ranges, with those of masked scores cut off below, and those of moved numbers as they were before."""
    from onnxruntime.quantization.calibrate import TensorData

    writers = walk.writers(proto.graph)

    def lowest(name: str, depth: int = 0) -> float | None:
        """The smallest number of a tensor that is not masked; None of a constant."""
        if name not in ranges:
            return None
        low, high = (float(np.min(edge)) for edge in ranges[name].range_value)
        node = writers.get(name)
        if low > _MASKED or node is None or depth > _DEEPEST:
            return low
        if node.op_type in ("Add", "Where", "Sub", *MOVES):
            places = {"Where": (1, 2), "Sub": (0,), "Add": (0, 1)}.get(node.op_type, (0,))
            sources = [lowest(node.input[place], depth + 1) for place in places]
            ordinary = [value for value in sources if value is not None and value > _MASKED]
            if ordinary:
                low = min(ordinary) - (0.0 if node.op_type in MOVES else _BELOW)
                edges = {"lowest": np.float32(min(low, high)), "highest": np.float32(high)}
                ranges[name] = TensorData(**edges)
        return low

    for node in proto.graph.node:
        if node.op_type == "Softmax":
            lowest(node.input[0])
        elif node.op_type in _SAME_RANGE and node.input[0] in ranges and node.output[0] in ranges:
            ranges[node.output[0]] = ranges[node.input[0]]
    return ranges


@contextmanager
def quiet() -> Iterator[None]:
    """Silence onnxruntime's quantizer: it warns through the root logger of what is known here, and prints."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
