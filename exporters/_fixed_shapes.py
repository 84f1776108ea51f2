"""An ONNX file for one sample and one length, for converters that want every shape known.

With the length known, an RNN whose activation is Relu becomes plain operations, one copy of them for each position: MNN
(as ncnn and tract) takes its node for one of tanh, without a word. So does a `Scan`, which neither MNN nor ncnn has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from compressor.errors import ExportError
from exporters import _unrolled_scans

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.task import Task

_SIZES = {"batch": 1}


def write(source: Path, target: Path, task: Task, length: int) -> Path:
    """Write `source` for batch 1 and one length to `target`, shapes computed, Relu RNNs and every `Scan` unrolled.

    Raises:
        ExportError: The file cannot be written for that length.
    """
    model = onnx.load(source)
    sizes = {**_SIZES, "time": length}
    for named, values in ((task.inputs, model.graph.input), (task.outputs, model.graph.output)):
        for value in values:
            for axis, word in named.get(value.name, {}).items():
                if word in sizes:
                    value.type.tensor_type.shape.dim[axis].dim_value = sizes[word]
    del model.graph.value_info[:]
    if unroll_relu(model, length):
        onnx.checker.check_model(model, full_check=True)
    fixed = target.with_suffix(".fixed.onnx")
    onnx.save(model, fixed)
    _fold(fixed, target)
    if _unrolled_scans.has_scan(model):  # how many steps it has is known once shapes are
        model = onnx.load(target)
        _unrolled_scans.unroll(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, fixed)
        _fold(fixed, target)
    return target


def _fold(source: Path, target: Path) -> None:
    """Let ONNX Runtime compute what is constant now: the arithmetic of shapes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(
            f"the model cannot be fixed to one length: {str(error).splitlines()[0]}", hint="leave `length` out"
        ) from error


def unroll_relu(model: onnx.ModelProto, length: int) -> int:
    """Replace every RNN node of Relu by plain operations over `length` positions, in place; returns how many.

    h_t = relu([W R] [x_t; h_{t-1}] + b_W + b_R), with the weights stored once, of batch 1. A node with
    `sequence_lens` is left alone.
    """
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    replaced = 0
    for node in graph.node:
        if _is_relu(node) and all(name in weights for name in node.input[1:3]):
            nodes += _Unrolled(graph, node, weights, length).nodes()
            replaced += 1
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return replaced


def has_relu(source: Path) -> bool:
    """Whether a file has an RNN node of Relu."""
    return any(_is_relu(node) for node in onnx.load(source).graph.node)


def _is_relu(node: onnx.NodeProto) -> bool:
    if node.op_type != "RNN" or (len(node.input) > 4 and node.input[4]):
        return False
    words: list[bytes] = next(
        (list(attribute.strings) for attribute in node.attribute if attribute.name == "activations"), []
    )
    return bool(words) and all(word == b"Relu" for word in words)


class _Unrolled:
    """The operations that do the same as one node."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, weights: dict[str, Any], length: int) -> None:
        self._graph, self._node, self._length = graph, node, length
        self._made: list[onnx.NodeProto] = []
        self._prefix = f"unrolled.{node.output[0] or node.output[1]}"
        self._w, self._r = weights[node.input[1]], weights[node.input[2]]  # (D, H, I), (D, H, H)
        directions, self._units = self._r.shape[:2]
        biases = weights.get(node.input[3]) if len(node.input) > 3 else None
        self._b = np.zeros((directions, 2 * self._units), np.float32) if biases is None else biases
        self._state = node.input[5] if len(node.input) > 5 and node.input[5] else None
        self._words = {attribute.name: attribute for attribute in node.attribute}

    def nodes(self) -> list[onnx.NodeProto]:
        directions = len(self._r)
        backwards = [False, True] if directions == 2 else [self._direction() == "reverse"]
        every = [self._one(index, back) for index, back in enumerate(backwards)]
        outputs = list(self._node.output) + [""] * (2 - len(self._node.output))
        if outputs[0]:
            steps = [self._op("Concat", [one[position] for one in every], axis=1) for position in range(self._length)]
            self._op("Concat", steps, out=outputs[0], axis=0)  # (T, D, B, H)
        if outputs[1]:
            last = [one[0 if back else -1] for one, back in zip(every, backwards, strict=True)]
            flat = [self._op("Squeeze", [state, self._constant("zero", np.array([0]))]) for state in last]
            self._op("Concat", flat, out=outputs[1], axis=0)  # (D, B, H)
        return self._made

    def _direction(self) -> str:
        word = self._words.get("direction")
        return "forward" if word is None else word.s.decode()

    def _one(self, index: int, back: bool) -> list[str]:
        """The hidden states (1, 1, B, H) of one direction, by position."""
        both = np.concatenate([self._w[index].T, self._r[index].T])  # (I + H, H)
        # One product of both: pnnx takes a product plus what is no constant for a layer that ncnn does not have.
        weights = self._constant(f"w{index}", np.ascontiguousarray(both))
        bias = self._constant(f"b{index}", self._b[index, : self._units] + self._b[index, self._units :])
        axes, zero = self._constant("two", np.array([0, 1])), self._constant("zero", np.array([0]))
        parts = [f"{self._prefix}.part{index}.{position}" for position in range(self._length)]
        if self._length > 1:
            sizes = self._constant("sizes", np.ones(self._length, np.int64))
            self._made.append(helper.make_node("Split", [self._node.input[0], sizes], parts, axis=0))  # (1, B, I)
        else:
            parts = [self._node.input[0]]
        if self._state is None:
            state = self._constant("start", np.zeros((1, self._units), np.float32))  # of batch 1
        else:
            state = self._op(
                "Gather", [self._state, self._constant(f"place{index}", np.array(index))], axis=0
            )  # (B, H)
        found = [""] * self._length
        for position in range(self._length - 1, -1, -1) if back else range(self._length):
            given = self._op("Squeeze", [parts[position], zero])  # (B, I)
            joined = self._op("Concat", [given, state], axis=1)
            state = self._op("Relu", [self._op("Add", [self._op("MatMul", [joined, weights]), bias])])
            found[position] = self._op("Unsqueeze", [state, axes])
        return found

    def _constant(self, name: str, value: Any) -> str:
        full = f"{self._prefix}.{name}"
        if all(tensor.name != full for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(value, full))
        return full

    def _op(self, kind: str, inputs: list[str], *, out: str = "", **attributes: Any) -> str:
        name = out or f"{self._prefix}.{len(self._made)}"
        self._made.append(
            helper.make_node(kind, inputs, [name], name=f"{self._prefix}.{kind}{len(self._made)}", **attributes)
        )
        return name
