"""Static QDQ: activations and weights in integers whose scales were calibrated, as NPUs want them.

Every tensor between two operators is rounded by a pair of QuantizeLinear and DequantizeLinear, whose scale comes from
what the tensor held on calibration data; an NPU's compiler fuses the pairs into operators of integers. The pairs and
the calibration are those of `onnxruntime.quantization`, with the settings that it has for QNN. What is done here:

- Recurrent nodes become plain operations for every position: no NPU takes RNN, GRU or LSTM everywhere, and those that
  take LSTM and GRU unroll them as well.
- Weights are rounded as everywhere in this package, and given to the quantizer with their scales.
- The range of scores in front of a Softmax leaves out what masks them: -1e4 in it would leave nothing for the rest.
- Operators that move numbers (Reshape, Gather, Concat ...) are in integers where a neighbour is.
"""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError
from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from compressor.onnx_graphs.unrolling import recurrent as unrolling
from exporters.quantization.matrices import Matrix, Use
from exporters.quantization.rewrite import rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form
    from exporters.quantization.rewrite import Weights

OPERATORS = "operators."
"""In front of the operator's name in the name of what stands for all its nodes."""
_MOVES = frozenset([
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze"
])  # fmt: skip
"""What only moves numbers, so that its output has the scale of its input."""
_SAME_RANGE = frozenset(["Expand", "GatherElements", "GatherND", "Identity", "Tile"])
"""Of these, such as the quantizer does not know by itself."""
_LEFT_OUT = frozenset(
    {*RECURRENT, "Cast", "Constant", "DequantizeLinear", "If", "Loop", "QuantizeLinear", "Scan", "Shape"}
)
_BINS = 512
"""Of histograms for `entropy`; the default is as many as there are integers, which leaves one range to choose from."""
_MASKED = -1e3
"""A number below this one in front of a Softmax stands for a position that is masked."""
_DEEPEST = 32
"""Nodes between a Softmax and the scores that are masked."""
_BELOW = 10.0
"""How far below the smallest score a masked one is put: its share of a Softmax is at most e^-10 of that one's."""
_FARTHEST = 1e4
"""The largest number of a mask: -inf has no scale, and with the smallest float32 ONNX Runtime's sums of integers
overflow."""
_INTO_SCORES = frozenset({"Add", "Mul", "Sub", "Where", *_MOVES})
"""What lies between a Softmax and the masks of its scores."""


def operators(proto: onnx.ModelProto, matrices: Sequence[Matrix], keep_float: Sequence[str]) -> list[Matrix]:
    """The nodes that compute with floats and have no matrix, one entry for all nodes of an operator."""
    from fnmatch import fnmatchcase

    sizes = _sizes(proto)
    with_matrix = {use.node for matrix in matrices for use in matrix.uses if matrix.channels}
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in proto.graph.node:
        computes = node.op_type not in _MOVES and node.op_type not in _LEFT_OUT
        if (
            computes
            and node.output[0] not in with_matrix
            and any(name in sizes for name in (*node.input, *node.output))
        ):
            found[node.op_type].append(node)
    made = []
    for operator, nodes in found.items():
        name = OPERATORS + operator
        pattern = next((pattern for pattern in keep_float if fnmatchcase(name, pattern)), None)
        uses = tuple(Use(operator, 0, node.output[0], plain=True, channels=()) for node in nodes)
        activations = 4 * sum(sizes.get(output, 0) for node in nodes for output in node.output)
        refused = f"`keep_float: {pattern}`" if pattern else ""
        made.append(Matrix(name, (), uses, (), refused, activations=activations))
    return made


def fit(proto: onnx.ModelProto, matrices: Sequence[Matrix]) -> list[Matrix]:
    """The matrices, each with why it cannot be in calibrated integers where that is so."""
    import onnx_ir as ir

    obstacles = {}
    for node in ir.from_proto(_inferred(proto)).graph:
        if node.op_type in RECURRENT:
            first = next(value.name for value in node.outputs if value.name)
            obstacles[first] = unrolling.obstacle(node)
    firsts = {node.output[0]: next(name for name in node.output if name) for node in proto.graph.node if node.output}
    made = []
    for matrix in matrices:
        why = [obstacles.get(firsts.get(use.node, use.node), "") for use in matrix.uses if use.operator in RECURRENT]
        inside = [use.operator for use in matrix.uses if use.node not in firsts]
        text = next((f"`{matrix.uses[0].operator}` stays: {reason}" for reason in why if reason), "")
        if inside:
            text = f"`{inside[0]}` is in the body of a loop, which no NPU takes"
        made.append(replace(matrix, unfit=text))
    return made


def prepared(proto: onnx.ModelProto, hint: str) -> onnx.ModelProto:
    """The graph with a name for every node, and masks of scores that are -1e4 instead of -inf or the smallest float.

    Raises:
        ExportError: A shape is open.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for value in made.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                word = dimension.dim_param or str(axis)
                raise ExportError(
                    f"axis `{word}` of the input `{value.name}` is open, and NPUs take fixed shapes only",
                    hint=hint or "name it in `shapes`, such as `shapes: {batch: 1, time: 32}`",
                )
    masks = _in_front_of_softmax(made)
    for tensor in made.graph.initializer:
        if tensor.name in masks and tensor.data_type == onnx.TensorProto.FLOAT:
            near = np.clip(onnx.numpy_helper.to_array(tensor), np.float32(-_FARTHEST), np.float32(_FARTHEST))
            tensor.CopyFrom(onnx.numpy_helper.from_array(near, tensor.name))
    _name_nodes(made, "node")
    return made


def _in_front_of_softmax(proto: onnx.ModelProto) -> set[str]:
    """Values that reach a Softmax through sums, choices and products of numbers one by one."""
    writers = {name: node for node in proto.graph.node for name in node.output}
    todo = [node.input[0] for node in proto.graph.node if node.op_type == "Softmax"]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            node = writers.get(name)
            todo += node.input if node is not None and node.op_type in _INTO_SCORES else []
    return found


def _name_nodes(proto: onnx.ModelProto, stem: str) -> None:
    seen: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{stem}.{index}"
        seen.add(node.name)


@dataclass(frozen=True)
class Calibration:
    """How the scales of activations are found."""

    method: str
    """`minmax`, `percentile` or `entropy`."""
    activations: str
    """`uint8` or `uint16`."""
    per_channel: bool
    """A scale for each output of a matrix; else one for a matrix."""


@dataclass(frozen=True)
class _Scales:
    """How a weight is rounded: w is about scale * (q - zero)."""

    scale: NDArray[np.float32]
    """Of the weight's number of axes, of size 1 where an axis has no scales of its own."""
    axis: int | None
    """The axis that has, in the weight's own shape; None where one scale does for all."""
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


@dataclass(frozen=True)
class _Plain:
    """A float graph in which recurrent nodes were unrolled."""

    proto: onnx.ModelProto
    pieces: Mapping[str, tuple[str, unrolling.Piece]]
    """Name of a constant -> the matrix of which it is a part, and which part."""
    layers: Mapping[str, str]
    """Name of a node that was made -> the recurrent matrix of its layer."""
    roles: Mapping[str, str]
    """Name of a value at one position -> what it is at every position."""


class Writer:
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
            same: Name of a value -> what it is, where others are the same at another step, so that they have one range.

        Raises:
            ExportError: A tensor is not finite on the calibration data, or the calibration fails.
        """
        self.proto, self.weights, self.calibration = proto, weights, calibration
        self._matrices = {matrix.name: matrix for matrix in matrices}
        self._groups = {use.node: m.name for m in matrices if not m.shape for use in m.uses}
        self._used = {use.node: m.name for m in matrices if m.shape and m.channels for use in m.uses}
        every = {matrix.name for matrix in matrices if matrix.shape and not matrix.unfit}
        self._last: tuple[tuple[tuple[str, Form], ...], _Plain, onnx.ModelProto] | None = None
        """The last forms, and what came of them: the best ones are written several times."""
        whole, alone = self._unrolled(proto, every), _inferred(proto)
        self._ranges = _alike(_unmasked(alone, _calibrate(alone, calibration, feeds, folder)), same)
        if whole.pieces:
            found = _unmasked(whole.proto, _calibrate(whole.proto, calibration, feeds, folder))
            self._ranges |= _alike(found, {**whole.roles, **same})

    def values(self, name: str, form: Form) -> NDArray[Any]:
        """The float values that a matrix in a form stands for."""
        if form != "static":
            return self.weights.restored(name, form)
        scales = self._scales(name)
        limit = 32767 if scales.kind == "uint16" else 127
        array = self.weights.arrays[name]
        rounded: NDArray[Any] = np.clip(np.rint(array / scales.scale), -limit, limit) * scales.scale
        return rounded.astype(np.float32)

    def stored_bytes(self, name: str, form: Form) -> int:
        """Bytes of a matrix in the file, scales included."""
        if not self._matrices[name].shape:
            return 0
        if form != "static":
            return self.weights.stored_bytes(name, form)
        scales = self._scales(name)
        return int(self.weights.arrays[name].size * (2 if scales.kind == "uint16" else 1) + 4 * scales.scale.size)

    def write(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """The graph with its matrices and operators in the given forms; what is not named stays float.

        Args:
            forms: Name of a matrix or of `operators.X` -> form.
            exact: With activations left in float, and all weights that are no matrices.
        """
        static = {name for name, form in forms.items() if form == "static"}
        others: dict[str, Form] = {name: form for name, form in forms.items() if form not in ("static", "float")}
        key = tuple(sorted((name, form) for name, form in forms.items() if form != "float"))
        if self._last is None or self._last[0] != key:
            plain = self._unrolled(rewrite(self.proto, self.weights, others), static)
            made = self._quantized(plain, static) if static else plain.proto
            self._last = key, plain, made
        _, plain, made = self._last
        if exact:
            return _without_activations(made, plain.proto, {*static, *plain.pieces})
        graph = self.proto.graph
        short = _short(made, {value.name for value in (*graph.input, *graph.output)} | set(self._matrices))
        del short.metadata_props[:]
        short.metadata_props.extend(self.proto.metadata_props)
        return short

    # --- weights ---

    def _scales(self, name: str) -> _Scales:
        array, matrix = self.weights.arrays[name], self._matrices[name]
        kind = self.calibration.activations if matrix.is_table else "int8"
        channels = matrix.channels if self.calibration.per_channel and not matrix.is_table else ()
        over = tuple(axis for axis in range(array.ndim) if axis not in channels)
        largest = np.abs(array).max(axis=over, keepdims=True).astype(np.float32)
        if kind == "uint16":
            return _Scales(np.where(largest > 0, largest / 32767, 1).astype(np.float32), None, kind, 32768)
        scale = self.weights.low(name).scale if channels else np.where(largest > 0, largest / 127, 1)
        axis = channels[-1] if channels else None
        return _Scales(scale.astype(np.float32), axis, kind, 0 if kind == "int8" else 128)

    def _piece(self, name: str, piece: unrolling.Piece) -> _Scales:
        """Those of a part of a recurrent matrix, which is transposed."""
        whole = self._scales(name)
        if whole.axis is None:
            return _Scales(whole.scale.reshape(1, 1), None)
        return _Scales(whole.scale[piece.direction, piece.rows].reshape(1, -1), 1)

    # --- graphs ---

    def _unrolled(self, proto: onnx.ModelProto, static: set[str]) -> _Plain:
        """Plain operations in the place of recurrent nodes with a matrix in `static`."""
        import onnx_ir as ir
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        proto = _inferred(proto)
        _name_nodes(proto, "made")
        model = ir.from_proto(proto)
        pieces: dict[str, tuple[str, unrolling.Piece]] = {}
        layers: dict[str, str] = {}
        roles: dict[str, str] = {}
        for node in list(model.graph):
            names = [str(value.name) if value is not None else "" for value in node.inputs]
            if node.op_type in RECURRENT and not static.isdisjoint(names):
                made = unrolling.unroll(model.graph, node)
                pieces |= {piece.name: (names[piece.place], piece) for piece in made.pieces}
                roles |= made.roles
                layers |= {str(new.name): names[2] for new in made.nodes}
        RemoveUnusedNodesPass()(model)
        return _Plain(_inferred(ir.to_proto(model)), pieces, layers, roles)

    def _quantized(self, plain: _Plain, static: set[str]) -> onnx.ModelProto:
        """Pairs around every tensor of the nodes that are in integers."""
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

        scales = {name: self._scales(name) for name in static if self._matrices[name].shape}
        scales |= {part: self._piece(name, piece) for part, (name, piece) in plain.pieces.items() if name in static}
        proto, present = plain.proto, {tensor.name for tensor in plain.proto.graph.initializer}
        overrides = {name: part.override() for name, part in scales.items() if name in present}
        for name in sorted(present & set(plain.roles)):  # a state of zeros in front of the first position
            low, high = self._ranges[name].range_value
            overrides[name] = [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        kind = {"uint8": QuantType.QUInt8, "uint16": QuantType.QUInt16}[self.calibration.activations]
        left = self._left_float(plain, static)
        with _quiet():
            config = get_qnn_qdq_config(
                proto,
                _Reader([]),
                activation_type=kind,
                weight_type=QuantType.QInt8,
                per_channel=self.calibration.per_channel,
                init_overrides=overrides,
                keep_removable_activations=True,
                nodes_to_exclude=left,
            )
            quantizer = QDQQuantizer(
                proto,
                self.calibration.per_channel,
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
        made: onnx.ModelProto = quantizer.model.model
        del made.graph.value_info[:]
        return made

    def _left_float(self, plain: _Plain, static: set[str]) -> list[str]:
        """Names of the nodes that are not in integers."""
        proto = plain.proto
        integer = {node.name: self._is_integer(node, plain, static) for node in proto.graph.node}
        moves = {node.name: node for node in proto.graph.node if integer[node.name] is None}
        readers = defaultdict(list)
        writers = {}
        for node in proto.graph.node:
            for name in node.input:
                readers[name].append(node.name)
            for name in node.output:
                writers[name] = node.name
        todo = [name for name, found in integer.items() if found]
        by_name = {node.name: node for node in proto.graph.node}
        while todo:  # from what computes in integers through everything that moves numbers
            node = by_name[todo.pop()]
            beside = [writers[name] for name in node.input if name in writers]
            beside += [reader for name in node.output for reader in readers[name]]
            for name in beside:
                if name in moves and integer[name] is None:
                    integer[name] = True
                    todo.append(name)
        return [name for name, found in integer.items() if not found]

    def _is_integer(self, node: onnx.NodeProto, plain: _Plain, static: set[str]) -> bool | None:
        """Whether a node is in integers; None where its neighbours say so."""
        if node.op_type in _LEFT_OUT:
            return False
        inside = [plain.pieces[name] for name in node.input if name in plain.pieces]
        if inside:
            return inside[0][0] in static
        if node.output[0] in self._used:
            return self._used[node.output[0]] in static
        if node.op_type in _MOVES:
            return None
        if node.output[0] in self._groups:
            return self._groups[node.output[0]] in static
        return plain.layers.get(node.name) in static


class _Reader:
    """Gives calibration data to onnxruntime's calibrators."""

    def __init__(self, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def _calibrate(
    proto: onnx.ModelProto, calibration: Calibration, feeds: Sequence[Mapping[str, NDArray[Any]]], folder: Path
) -> dict[str, Any]:
    """The range of every float tensor, as onnxruntime's `TensorData`."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    source = folder / "calibrated.onnx"
    onnx.save(proto, source)
    method = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[calibration.method]
    try:
        with _quiet():
            calibrator = create_calibrator(
                source,
                None,
                str(folder / "augmented.onnx"),
                calibrate_method=method,
                extra_options={"symmetric": False, **({"num_bins": _BINS} if calibration.method == "entropy" else {})},
            )
            calibrator.collect_data(_Reader(feeds))
            found = calibrator.compute_data()
    except Exception as error:  # of ONNX Runtime and numpy, which have no common base
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            f"the calibration by `{calibration.method}` failed: {why}", hint="use `calibration: minmax`"
        ) from error
    for name, data in found.items():
        low, high = (float(np.min(edge)) for edge in data.range_value)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ExportError(
                f"`{name}` is not finite on the calibration data ({low:g} to {high:g})",
                hint="look for NaN or infinity in the task's `batches`, and for a division by zero in the model",
            )
    return dict(found.items())


def _alike(ranges: dict[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    """The ranges, with one for all positions of what is the same value at each of them.

    A state then has one scale, as in a recurrent operator; with one for each position every position would also have
    biases of its own, since these have the product of the scales of both sides.
    """
    from onnxruntime.quantization.calibrate import TensorData

    names = defaultdict(list)
    for name, role in roles.items():
        names[role].append(name)
    found = dict(ranges)
    for group in names.values():
        known = [ranges[name].range_value for name in group if name in ranges]
        if known:
            edges = {"lowest": np.float32(min(np.min(low) for low, _ in known))}
            edges["highest"] = np.float32(max(np.max(high) for _, high in known))
            found |= dict.fromkeys(group, TensorData(**edges))
    return found


def _unmasked(proto: onnx.ModelProto, ranges: dict[str, Any]) -> dict[str, Any]:
    """The ranges, with those of masked scores cut off below, and those of moved numbers as they were before."""
    from onnxruntime.quantization.calibrate import TensorData

    writers = {name: node for node in proto.graph.node for name in node.output}

    def lowest(name: str, depth: int = 0) -> float | None:
        """The smallest number of a tensor that is not masked; None of a constant."""
        if name not in ranges:
            return None
        low, high = (float(np.min(edge)) for edge in ranges[name].range_value)
        node = writers.get(name)
        if low > _MASKED or node is None or depth > _DEEPEST:
            return low
        if node.op_type in ("Add", "Where", "Sub", *_MOVES):
            places = {"Where": (1, 2), "Sub": (0,), "Add": (0, 1)}.get(node.op_type, (0,))
            found = [lowest(node.input[place], depth + 1) for place in places]
            ordinary = [value for value in found if value is not None and value > _MASKED]
            if ordinary:
                low = min(ordinary) - (0.0 if node.op_type in _MOVES else _BELOW)
                edges = {"lowest": np.float32(min(low, high)), "highest": np.float32(high)}
                ranges[name] = TensorData(**edges)
        return low

    for node in proto.graph.node:
        if node.op_type == "Softmax":
            lowest(node.input[0])
        elif node.op_type in _SAME_RANGE and node.input[0] in ranges and node.output[0] in ranges:
            ranges[node.output[0]] = ranges[node.input[0]]
    return ranges


def _without_activations(made: onnx.ModelProto, plain: onnx.ModelProto, matrices: set[str]) -> onnx.ModelProto:
    """A quantized graph without its pairs: matrices are what their integers stand for, all else is float as it was.

    The integers are multiplied by their scales here: ONNX Runtime turns a DequantizeLinear in front of a product into
    one that rounds the other side too.
    """
    import onnx

    floats = {f"{tensor.name}_quantized": tensor for tensor in plain.graph.initializer}
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    same: dict[str, str] = {}
    new: dict[str, onnx.TensorProto] = {}
    kept = []
    for node in made.graph.node:
        source = same.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "QuantizeLinear" or (node.op_type == "DequantizeLinear" and source not in weights):
            same[node.output[0]] = source
        elif node.op_type == "DequantizeLinear" and source in floats:
            tensor = floats[source]
            if tensor.name in matrices:
                array = _dequantized(node, weights)
                tensor = onnx.numpy_helper.from_array(array.reshape(tuple(tensor.dims)), node.output[0])
            same[node.output[0]] = tensor.name
            new[tensor.name] = tensor
        else:
            kept.append(node)
    found = onnx.ModelProto()
    found.CopyFrom(made)
    del found.graph.node[:], found.graph.initializer[:]
    for node in kept:
        copied = found.graph.node.add()
        copied.CopyFrom(node)
        copied.input[:] = [same.get(name, name) for name in node.input]
    for output in made.graph.output:
        if output.name in same:
            found.graph.node.append(onnx.helper.make_node("Identity", [same[output.name]], [output.name]))
    used = {name for node in found.graph.node for name in node.input}
    found.graph.initializer.extend(tensor for name, tensor in {**weights, **new}.items() if name in used)
    return found


def _dequantized(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> NDArray[np.float32]:
    """What a DequantizeLinear gives of a constant."""
    from onnx.numpy_helper import to_array

    values, scale, zero = (to_array(weights[name]) for name in node.input)
    if scale.ndim:
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    found: NDArray[np.float32] = (values.astype(np.float32) - zero.astype(np.float32)) * scale
    return found


def _short(given: onnx.ModelProto, kept: set[str]) -> onnx.ModelProto:
    """Short names for values and none for nodes: of an unrolled layer they take more bytes than the weights."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(given)
    names: dict[str, str] = {"": ""}

    def short(name: str) -> str:
        keep = name in kept or name.removesuffix("_quantized") in kept
        return names.setdefault(name, name if keep else f"t{len(names):x}")

    shared: dict[bytes, str] = {}
    tensors = []
    for tensor in proto.graph.initializer:
        old, tensor.name = tensor.name, ""
        content = tensor.SerializeToString(deterministic=True)
        first = content not in shared
        names[old] = tensor.name = shared.setdefault(content, short(old))
        if first:
            tensors.append(tensor)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(tensors)
    for node in proto.graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    return proto


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def _sizes(proto: onnx.ModelProto) -> dict[str, int]:
    """Name of a float tensor that no weight is -> how many numbers it holds."""
    import onnx

    graph = _inferred(proto).graph
    found = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.FLOAT:
            found[value.name] = int(np.prod([dimension.dim_value or 1 for dimension in kind.shape.dim]))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Onnxruntime's quantizer warns about what is known here by the root logger, and prints what it does."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
