"""Nodes that other runtimes compute wrong or do not load, as measured: what `compressor check` and the docs say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from compressor.onnx_graphs.recurrent_node import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressor.onnx_graphs.node_facts import NodeFacts


@dataclass(frozen=True)
class Failure:
    """Nodes that fail in a runtime."""

    nodes: str
    """Which, in words."""
    happens: str
    applies: Callable[[NodeFacts], bool]


def _is(*operators: str) -> Callable[[NodeFacts], bool]:
    return lambda node: node.node.op_type in operators


def _is_relu(node: NodeFacts) -> bool:
    words = node.attribute("activations", ())
    return node.node.op_type == "RNN" and any(word.lower() == b"relu" for word in words)


def _starts_somewhere(node: NodeFacts) -> bool:
    return node.node.op_type == "RNN" and bool(node.name(PLACES["h"]))


def _runs_backward_only(node: NodeFacts) -> bool:
    return node.node.op_type == "GRU" and node.attribute("direction", "forward") == "reverse"


def _has_lengths(node: NodeFacts) -> bool:
    return node.node.op_type in RECURRENT and bool(node.name(PLACES["lengths"]))


def _last_state_is_read(node: NodeFacts) -> bool:
    return node.node.op_type == "GRU" and node.output_is_read(1)


_RELU, _BACKWARD = "`RNN` with relu", "`GRU` that runs backward only"
_AS_TANH = "it is computed as if it were tanh, with no warning (off by 0.4)"
_IGNORED = "pnnx ignores its parameters and the file does not run"
NCNN = (
    Failure(_RELU, _AS_TANH, _is_relu),
    Failure(_BACKWARD, "ncnn does not load the file", _runs_backward_only),
    Failure("`GRU` whose last state is read", "ncnn does not load the file", _last_state_is_read),
    Failure("`GatherElements`", "ncnn has no such layer and does not load the file", _is("GatherElements")),
    Failure("`Attention`", _IGNORED, _is("Attention")),
    Failure("`Scan`", "pnnx cannot load the file", _is("Scan")),
    Failure("`Range`, `ReduceMax`", _IGNORED, _is("Range", "ReduceMax")),
)
"""pnnx and ncnn of October 2026."""
MNN = (
    Failure(_RELU, _AS_TANH, _is_relu),
    Failure(_BACKWARD, "it is computed wrong, with no warning (off by 0.2 to 0.4)", _runs_backward_only),
    Failure("recurrent node with `sequence_lens`", "the lengths are not followed, with no warning", _has_lengths),
    Failure("`Attention`", "the converter writes no file", _is("Attention")),
    Failure("`Scan`", "the converted file does not load", _is("Scan")),
)
"""MNN 3.6.1."""
LITERT = (
    Failure(
        "`RNN` with an initial state", "an initial state is ignored, with no warning (off by 3)", _starts_somewhere
    ),
    Failure("`Attention`", "the converted file does not run", _is("Attention")),
    Failure("`Scan`", "ONNX_SCAN stays an unresolved operator", _is("Scan")),
)
"""onnx2tf 2.6.9 with ai-edge-litert 2.3.0."""
