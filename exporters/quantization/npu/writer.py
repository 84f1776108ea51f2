"""Writes graphs in calibrated integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.onnx_graphs import walk
from exporters.quantization.npu.compact import compact
from exporters.quantization.npu.float_twin import without_activations
from exporters.quantization.npu.graphs import LEFT_OUT, MOVES, inferred
from exporters.quantization.npu.ranges import Reader, calibrate, quiet, unified, unmasked
from exporters.quantization.npu.scales import WeightScales
from exporters.quantization.npu.unrolled import unrolled
from exporters.quantization.rewrite import rewrite
from exporters.quantization.writing import restored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form, Matrix
    from exporters.quantization.npu.ranges import Calibration
    from exporters.quantization.npu.unrolled import Plain
    from exporters.quantization.weights import Weights


class NpuWriter:
    """Writes a graph with its matrices in their forms; ranges of activations are calibrated once."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        matrices: Sequence[Matrix],
        weights: Weights,
        calibration: Calibration,
        feeds: Sequence[Mapping[str, NDArray[Any]]],
        folder: Path,
        same: Mapping[str, str],
    ) -> None:
        """Unroll and calibrate.

        Args:
            proto: A float graph of fixed shapes, from `prepared`.
            matrices: Its matrices and operators.
            weights: Its matrices' values.
            calibration: How to calibrate.
            feeds: Inputs of the graph, one call each.
            folder: Where files may be written for a while.
            same: Name of a value -> what it is at every step, for values that are to have one range at all of them.

        Raises:
            ExportError: A tensor is not finite on the calibration data, or the calibration fails.
        """
        self._proto, self._weights, self._calibration = proto, weights, calibration
        self._matrices = {matrix.name: matrix for matrix in matrices}
        self._scales = WeightScales(weights, self._matrices, calibration)
        self._groups = {use.node: m.name for m in matrices if not m.shape for use in m.uses}
        self._used = {use.node: m.name for m in matrices if m.shape and m.channels for use in m.uses}
        every = {matrix.name for matrix in matrices if matrix.shape and not matrix.unfit}
        self._last: tuple[tuple[tuple[str, Form], ...], Plain, onnx.ModelProto] | None = None
        """The last forms, and what came of them: the best ones are written several times."""
        whole, alone = unrolled(proto, every), inferred(proto)
        self._ranges = unified(unmasked(alone, calibrate(alone, calibration, feeds, folder)), same)
        if whole.pieces:
            ranges = unmasked(whole.proto, calibrate(whole.proto, calibration, feeds, folder))
            self._ranges |= unified(ranges, {**whole.roles, **same})

    def restored(self, forms: Mapping[str, Form]) -> onnx.ModelProto:
        """The float graph with its matrices rounded in their values only."""
        return restored(self._proto, self, forms)

    def values(self, name: str, form: Form) -> NDArray[Any]:
        """The float values that a matrix in a form stands for."""
        return self._scales.values(name) if form == "static" else self._weights.restored(name, form)

    def stored_bytes(self, name: str, form: Form) -> int:
        """Bytes of a matrix in the file, scales included."""
        if not self._matrices[name].shape:
            return 0
        return self._scales.stored_bytes(name) if form == "static" else self._weights.stored_bytes(name, form)

    def draft(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """The graph with its matrices and operators in the given forms, whole: calibrated graphs are small.

        What is not named stays float.

        Args:
            forms: Name of a matrix or of `operators.X` -> form.
            exact: With activations left in float, and all weights that are no matrices.
        """
        static = {name for name, form in forms.items() if form == "static"}
        others: dict[str, Form] = {name: form for name, form in forms.items() if form not in ("static", "float")}
        key = tuple(sorted((name, form) for name, form in forms.items() if form != "float"))
        if self._last is None or self._last[0] != key:
            on_grid = restored(self._proto, self, {name: "static" for name in static if self._matrices[name].shape})
            plain = unrolled(rewrite(on_grid, self._weights, others), static)
            rounded = self._quantized(plain, static) if static else plain.proto
            self._last = key, plain, rounded
        _, plain, rounded = self._last
        if exact:
            return without_activations(rounded, plain.proto, {*static, *plain.pieces})
        graph = self._proto.graph
        short = compact(rounded, {value.name for value in (*graph.input, *graph.output)} | set(self._matrices))
        del short.metadata_props[:]
        short.metadata_props.extend(self._proto.metadata_props)
        return short

    def _quantized(self, plain: Plain, static: set[str]) -> onnx.ModelProto:
        """Pairs around every tensor of the nodes that are in integers."""
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

        scales = {name: self._scales.of(name) for name in static if self._matrices[name].shape}
        scales |= {
            part: self._scales.of_piece(name, piece) for part, (name, piece) in plain.pieces.items() if name in static
        }
        proto, present = plain.proto, {tensor.name for tensor in plain.proto.graph.initializer}
        overrides = {name: part.override() for name, part in scales.items() if name in present}
        for name in sorted(present & set(plain.roles)):  # a state of zeros in front of the first position
            low, high = self._ranges[name].range_value
            overrides[name] = [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        kind = {"uint8": QuantType.QUInt8, "uint16": QuantType.QUInt16}[self._calibration.activations]
        left = self._left_float(plain, static)
        with quiet():
            config = get_qnn_qdq_config(
                proto,
                Reader([]),
                activation_type=kind,
                weight_type=QuantType.QInt8,
                per_channel=self._calibration.per_channel,
                init_overrides=overrides,
                keep_removable_activations=True,
                nodes_to_exclude=left,
            )
            quantizer = QDQQuantizer(
                proto,
                self._calibration.per_channel,
                False,
                QuantType.QInt8,
                kind,
                TensorsData(CalibrationMethod.MinMax, {n: r for n, r in self._ranges.items() if n not in present}),
                [],
                left,
                config.op_types_to_quantize,
                {**config.extra_options, "ForceQuantizeNoInputCheck": True},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        del quantized.graph.value_info[:]
        return quantized

    def _left_float(self, plain: Plain, static: set[str]) -> list[str]:
        """Names of the nodes that are not in integers."""
        graph = plain.proto.graph
        integer = {node.name: self._is_integer(node, plain, static) for node in graph.node}
        readers, writers = walk.readers(graph), walk.writers(graph)
        by_name = {node.name: node for node in graph.node}
        todo = [name for name, is_integer in integer.items() if is_integer]
        while todo:  # from what computes in integers through everything that moves numbers
            node = by_name[todo.pop()]
            beside = [writers[name] for name in node.input if name in writers]
            beside += [reader for name in node.output for reader in readers.get(name, ())]
            for neighbour in beside:
                if integer[neighbour.name] is None:
                    integer[neighbour.name] = True
                    todo.append(neighbour.name)
        return [name for name, is_integer in integer.items() if not is_integer]

    def _is_integer(self, node: onnx.NodeProto, plain: Plain, static: set[str]) -> bool | None:
        """Whether a node is in integers; None if its neighbours decide."""
        if node.op_type in LEFT_OUT:
            return False
        inside = [plain.pieces[name] for name in node.input if name in plain.pieces]
        if inside:
            return inside[0][0] in static
        if node.output[0] in self._used:
            return self._used[node.output[0]] in static
        if node.op_type in MOVES:
            return None
        if node.output[0] in self._groups:
            return self._groups[node.output[0]] in static
        return plain.layers.get(node.name) in static
