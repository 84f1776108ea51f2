"""Small ONNX graphs, written by hand."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

T, B, I, H = 5, 3, 4, 6  # noqa: E741 the sizes of a recurrent layer
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def model(nodes, inputs, outputs, weights=None, opset=18):
    """`inputs`: name -> shape, or (shape, element type); `outputs`: name -> rank; `weights`: name -> array."""
    given = []
    for name, said in inputs.items():
        shape, kind = said if isinstance(said, tuple) else (said, TensorProto.FLOAT)
        given.append(helper.make_tensor_value_info(name, kind, shape))
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()]
    kept = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", given, made, kept)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def recurrent(operator, *, direction="forward", lengths=False, states=False, bias=True, time="time", **attributes):
    """One recurrent node, all of whose outputs are the model's."""
    generator = np.random.default_rng(0)
    count, gates = 2 if direction == "bidirectional" else 1, GATES[operator]

    def random(*shape):
        return generator.normal(size=shape, scale=0.5).astype(np.float32)

    weights = {"W": random(count, gates * H, I), "R": random(count, gates * H, H)}
    inputs = {"x": [time, "batch", I]}
    names = ["x", "W", "R", "B" if bias else "", "lengths" if lengths else ""]
    if bias:
        weights["B"] = random(count, 2 * gates * H)
    if lengths:
        inputs["lengths"] = (["batch"], TensorProto.INT32)
    kinds = ["h", "c"][: 2 if operator == "LSTM" else 1]
    if states:
        inputs |= {kind: [count, "batch", H] for kind in kinds}
        names += kinds
    outputs = {"y": 4} | {f"last_{kind}": 3 for kind in kinds}
    node = helper.make_node(operator, names, list(outputs), hidden_size=H, direction=direction, **attributes)
    return model([node], inputs, outputs, weights)
