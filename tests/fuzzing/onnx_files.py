"""ONNX files: small good ones, with a part of the graph changed, or with bytes damaged."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressor.onnx_graphs.targets import names
from tests.fuzzing.bytes import damaged
from tests.fuzzing.values import ESCAPE
from tests.fuzzing.verdict import Case, of_command

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto


@cache
def _content() -> bytes:
    """A GRU and a product: shapes, weights, attributes, two open axes."""
    draw = np.random.default_rng(0)
    shapes = {"w": (1, 12, 3), "r": (1, 12, 4), "m": (4, 2)}
    weights = [numpy_helper.from_array(draw.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["y"], name="gru", hidden_size=4),
        helper.make_node("Squeeze", ["y", "axis"], ["flat"], name="squeeze"),
        helper.make_node("MatMul", ["flat", "m"], ["scores"], name="head"),
        helper.make_node("Softmax", ["scores"], ["out"], name="softmax", axis=-1),
    ]
    weights.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["time", "batch", 2])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _external(location: str, length: int = 96) -> Callable[[ModelProto], None]:
    """Weights that are said to lie in another file."""

    def change(model: ModelProto) -> None:
        weight = model.graph.initializer[2]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": str(length)}.items():
            weight.external_data.add(key=key, value=value)

    return change


def _opset(model: ModelProto) -> None:
    model.opset_import[0].version = 999


def _operator(model: ModelProto) -> None:
    model.graph.node[2].op_type = ESCAPE


def _circle(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "out"


def _undefined(model: ModelProto) -> None:
    model.graph.node[2].input[1] = f"gone{ESCAPE}"


def _dtype(model: ModelProto) -> None:
    model.graph.initializer[2].data_type = 99


def _dims(model: ModelProto) -> None:
    model.graph.initializer[2].dims[0] = 1 << 40


def _negative(model: ModelProto) -> None:
    model.graph.initializer[2].dims[0] = -4


def _no_outputs(model: ModelProto) -> None:
    del model.graph.output[:]


def _fewer_bytes(model: ModelProto) -> None:
    model.graph.initializer[2].raw_data = b"\0" * 8


def _unchanged(model: ModelProto) -> None:
    """What is wrong cannot be said in a message, which takes text alone."""


_BYTES = "an operator of bytes that are no text"
MUST_REFUSE: dict[str, Callable[[ModelProto], None]] = {
    "an opset that is not there": _opset,
    "an operator that fills clipboards": _operator,
    _BYTES: _unchanged,
    "a circle": _circle,
    "an input that is not there": _undefined,
    "an unknown type": _dtype,
    "2**41 weights": _dims,
    "a negative shape": _negative,
    "no outputs": _no_outputs,
    "too few bytes of weights": _fewer_bytes,
    "weights outside of its folder": _external("../weights.bin"),
    "weights at an absolute path": _external("/etc/passwd"),
    "weights in a device": _external("device"),
    "weights in a file that is not there": _external("gone.bin"),
    "weights beyond the end of their file": _external("short.bin", 1 << 40),
}


def listed(what: str, folder: Path) -> Case:
    """One of the list."""
    (folder / "short.bin").write_bytes(bytes(8))
    (folder / "device").symlink_to("/dev/zero")
    model = onnx.ModelProto.FromString(_content())
    MUST_REFUSE[what](model)
    file = folder / "model.onnx"
    content = model.SerializeToString()
    file.write_bytes(content.replace(b"MatMul", b"Mat\xffMul"[:6]) if what == _BYTES else content)
    return Case(what, "refused", lambda: of_command("check", file, "--target", "nnapi"))


def case(draw: random.Random, folder: Path) -> Case:
    """A file that is checked for a target, for which it is loaded in a process of its own."""
    file = folder / draw.choice(("model.onnx", "model\x1b]0;x\x07.onnx"))
    command = ("check", file, "--target", draw.choice(names()))
    if draw.random() < 0.3:
        command += ("--json",) if draw.random() < 0.5 else ("--fix", "--out", folder / "fixed.onnx")
    kind = draw.choice(("good", "listed", "listed", "changed", "changed", "damaged", "damaged", "damaged"))
    model = onnx.ModelProto.FromString(_content())
    if kind == "good":
        file.write_bytes(_content())
        return Case("as it is", "accepted", lambda: of_command(*command))
    if kind == "listed":
        return listed(draw.choice(list(MUST_REFUSE)), folder)
    if kind == "changed":
        what = _changed(model, draw)
        file.write_bytes(model.SerializeToString())
        return Case(what, "either", lambda: of_command(*command))
    what, content = damaged(_content(), draw)
    file.write_bytes(content)
    return Case(what, "either", lambda: of_command(*command))


def _changed(model: ModelProto, draw: random.Random) -> str:
    """Change one part of the graph, in place; gives how."""
    graph = model.graph
    node = draw.choice(graph.node)
    what = draw.choice(("operator", "attribute", "input", "less", "domain", "name", "size", "order", "twice"))
    match what:
        case "operator":
            node.op_type = draw.choice(("Add", "LSTM", "Loop", "If", "Scan", "Attention", "Constant", "Identity"))
        case "attribute":
            node.attribute.append(helper.make_attribute("axis", draw.choice((99, -99, 1.5, "axis"))))
        case "input":
            node.input.append(draw.choice(("", "x", "out", "w")))
        case "less":
            graph.node.remove(node)
        case "domain":
            node.domain = draw.choice(("com.microsoft", "my.domain", ESCAPE))
        case "name":
            node.name = draw.choice(("", ESCAPE, "x" * 100_000))
        case "size":
            graph.input[0].type.tensor_type.shape.dim[draw.randrange(3)].dim_value = draw.choice((0, -1, 1 << 40))
        case "order":
            nodes = draw.sample(list(graph.node), len(graph.node))
            del graph.node[:]
            graph.node.extend(nodes)
        case _:
            graph.node.append(node)
    return f"{what} of a {node.op_type}"
