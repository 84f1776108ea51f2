"""Latency of a file that was not written: a table by layer kind and size, measured in ONNX Runtime on this machine.

A model takes what its recurrent and Linear layers and the projections of its attention take, each alone in a graph and
without the call itself, and a rest, which is known from the original: its measured latency less its own layers. Every
kind and size is measured when it is first asked for.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from compressor.gates import BY_OPERATOR
from compressor.nn.hooks import hooked
from compressor.nn.recurrent.layers import is_layer, parts
from compressor.runtimes.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.task.contract import Task

_RUNS: Final = 25
_WARMUP: Final = 5


@dataclass(frozen=True, order=True)
class LayerSize:
    """One layer as ONNX Runtime computes it."""

    operator: str
    """`RNN`, `GRU`, `LSTM` or `MatMul`."""
    rows: int
    """Steps of a recurrent layer, rows that a matrix is applied to."""
    inputs: int
    outputs: int


@dataclass
class LatencyTable:
    """Milliseconds of layers, measured when they are first asked for."""

    threads: int = 1
    known: dict[LayerSize, float] = field(default_factory=dict)

    def of(self, size: LayerSize) -> float:
        """Milliseconds of one layer, without what any call of a file takes."""
        if size not in self.known:
            self.known[size] = max(0.0, _measured(_graph(size), _shape(size), self.threads) - self.call)
        return self.known[size]

    @cached_property
    def call(self) -> float:
        """Milliseconds of a call of a file that does next to nothing."""
        return _measured(_one_node(helper.make_node("Neg", ["x"], ["y"]), [None], []), (1,), self.threads)

    def of_model(self, model: nn.Module, task: Task) -> float:
        """Milliseconds of all layers of a model that are known, for one sample of the task's length."""
        return sum(self.of(size) for size in layer_sizes(model, task))


def layer_sizes(model: nn.Module, task: Task) -> list[LayerSize]:
    """Every call of a recurrent or Linear layer, or of attention, for one sample of the task's length."""
    seen: list[LayerSize] = []

    def watch(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.extend(_sizes(module, args, named))

    kinds = (nn.Linear, nn.MultiheadAttention)
    layers = [module for module in model.modules() if is_layer(module) or isinstance(module, kinds)]
    handles = (module.register_forward_pre_hook(watch, with_kwargs=True) for module in layers)
    weight = next(model.parameters(), torch.empty(0))
    with hooked(handles), torch.no_grad():
        model(*(part.to(weight.device) for part in task.example(1, task.length)))
    return seen


def _sizes(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[LayerSize]:
    if isinstance(module, nn.MultiheadAttention):
        yield from _projections(module, args, named)
        return
    if not args:
        return
    if isinstance(module, nn.Linear):
        yield LayerSize(
            "MatMul", max(1, args[0].numel() // module.in_features), module.in_features, module.out_features
        )
    elif is_layer(module):
        if isinstance(args[0], PackedSequence):
            steps = len(args[0].batch_sizes)
        else:
            steps = args[0].shape[1 if module.batch_first and args[0].dim() == 3 else 0]
        for part in parts(module):
            matrix, gates = part.weights(module)["weight_ih"], part.cell.gates
            if gates.operator:
                yield LayerSize(gates.operator, int(steps), matrix.shape[1], matrix.shape[0] // gates.count)


def _projections(module: nn.MultiheadAttention, args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[LayerSize]:
    """The four matrix products of attention, which calls no Linear module for them."""
    names = ("query", "key", "value")
    inputs = [*args[:3], *(named[name] for name in names[len(args) :] if name in named)]
    for part in inputs:
        width = part.shape[-1]
        yield LayerSize("MatMul", max(1, part.numel() // width), width, module.embed_dim)
    if inputs:
        rows = max(1, inputs[0].numel() // inputs[0].shape[-1])
        yield LayerSize("MatMul", rows, module.embed_dim, module.embed_dim)


def _shape(size: LayerSize) -> tuple[int, ...]:
    """Of the input of the graph of a layer."""
    return (size.rows, size.inputs) if size.operator == "MatMul" else (size.rows, 1, size.inputs)


def _measured(graph: onnx.ModelProto, shape: tuple[int, ...], threads: int) -> float:
    """Median of some runs, in ms."""
    session = open_session(graph.SerializeToString(), threads=threads)
    feed = {"x": np.zeros(shape, np.float32)}
    times = []
    for index in range(_WARMUP + _RUNS):
        started = time.perf_counter()
        session.run(None, feed)
        if index >= _WARMUP:
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _graph(size: LayerSize) -> onnx.ModelProto:
    """The layer alone, with weights that are not 0: products with denormal numbers would be slow."""
    weights: dict[str, tuple[int, ...]] = {"w": (size.inputs, size.outputs)}
    attributes: dict[str, Any] = {}
    if size.operator != "MatMul":
        gates = BY_OPERATOR[size.operator].count
        weights = {"w": (1, gates * size.outputs, size.inputs), "r": (1, gates * size.outputs, size.outputs)}
        attributes = {"hidden_size": size.outputs}
    node = helper.make_node(size.operator, ["x", *weights], ["y"], **attributes)
    shape: list[int | None] = [None, size.inputs] if size.operator == "MatMul" else [None, 1, size.inputs]
    random = np.random.default_rng(0)
    tensors = [
        helper.make_tensor(name, TensorProto.FLOAT, sizes, (0.1 * random.standard_normal(sizes)).ravel().tolist())
        for name, sizes in weights.items()
    ]
    return _one_node(node, shape, tensors)


def _one_node(node: onnx.NodeProto, shape: list[int | None], tensors: list[TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
