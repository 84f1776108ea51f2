from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask
from exporters.onnx import Options, export

INPUT, HIDDEN = 5, 7
LAYERS = [
    {"num_layers": 1, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "bias": False},
    {"num_layers": 1, "bidirectional": True, "batch_first": True, "bias": False},
]
WITH_STATES = [False, True, False, True]
KINDS = {
    "RNN tanh": (nn.RNN, {"nonlinearity": "tanh"}, "RNN"),
    "RNN relu": (nn.RNN, {"nonlinearity": "relu"}, "RNN"),
    "GRU": (nn.GRU, {}, "GRU"),
    "LSTM": (nn.LSTM, {}, "LSTM"),
}


class Zoo(nn.Module):
    """Several recurrent modules side by side, and the first of them once more on one unbatched sample."""

    def __init__(self, cls, extra):
        super().__init__()
        self.members = nn.ModuleList(cls(INPUT, HIDDEN, **layer, **extra) for layer in LAYERS)

    def forward(self, features, *states):
        results = []
        remaining = list(states)
        for member, takes_states in zip(self.members, WITH_STATES, strict=True):
            x = features if member.batch_first else features.transpose(0, 1)
            results += flat(member(x, self._states(member, remaining)) if takes_states else member(x))
        return (*results, *flat(self.members[0](features[0])))

    def _states(self, member, remaining):
        count = 2 if isinstance(member, nn.LSTM) else 1
        taken = tuple(remaining.pop(0) for _ in range(count))
        return taken if count == 2 else taken[0]


def flat(result):
    output, last = result
    return (output, *last) if isinstance(last, tuple) else (output, last)


def zoo_task(per_layer):
    rows = [
        layer["num_layers"] * (2 if layer.get("bidirectional") else 1)
        for layer, takes in zip(LAYERS, WITH_STATES, strict=True)
        if takes
        for _ in range(per_layer)
    ]
    inputs = {"features": {0: "batch", 1: "time"}} | {f"state_{i}": {1: "batch"} for i in range(len(rows))}
    outputs = {}
    for index, layer in enumerate(LAYERS):
        outputs[f"output_{index}"] = {0: "batch", 1: "time"} if layer.get("batch_first") else {0: "time", 1: "batch"}
        outputs |= {f"last_{index}_{i}": {1: "batch"} for i in range(per_layer)}
    outputs |= {"unbatched": {0: "time"}} | {f"unbatched_last_{i}": {} for i in range(per_layer)}

    def example(batch, length):
        return torch.randn(batch, length, INPUT), *(torch.randn(n, batch, HIDDEN) for n in rows)

    return RandomTask(inputs, outputs, example)


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    cls, extra, operator = KINDS[request.param]
    torch.manual_seed(0)
    model = Zoo(cls, extra).eval()
    task = zoo_task(2 if cls is nn.LSTM else 1)
    path = tmp_path_factory.mktemp("zoo") / "zoo.onnx"
    artifact = export(Job(model, task, path, Options()))
    return model, task, path, artifact, operator


def test_outputs_and_last_states_agree_with_pytorch_at_an_unseen_size(exported):
    model, task, path, artifact, _ = exported
    inputs = task.example(7, 23)
    with torch.no_grad():
        torch.testing.assert_close(OnnxFile(path)(*inputs), model(*inputs), atol=1e-5, rtol=1e-4)
    assert artifact.parity.passed
    assert len({(point.batch, point.length) for point in artifact.parity.points}) >= 4


def test_each_layer_is_one_native_node_and_nothing_is_unrolled(exported):
    _, _, _, artifact, operator = exported
    layers = sum(layer["num_layers"] for layer in LAYERS) + LAYERS[0]["num_layers"]
    assert artifact.operators[operator] == layers
    assert not {"Loop", "Scan", "MatMul", "Gemm", "Expand", "ConstantOfShape"} & set(artifact.operators)


def test_weights_and_biases_are_plain_initializers(exported):
    *_, path, _, operator = exported
    graph = onnx.load(path).graph
    initializers = {initializer.name for initializer in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == operator]
    assert all(name in initializers or name == "" for node in nodes for name in node.input[1:4])


def test_only_given_initial_states_and_biases_become_inputs_of_the_nodes(exported):
    *_, path, _, operator = exported
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == operator]
    states = [len([name for name in node.input[5:] if name]) for node in nodes]
    per_node = 2 if operator == "LSTM" else 1
    assert states == [0] + [per_node] * 2 + [0] * 3 + [per_node] + [0]
    assert [len(node.input) for node in nodes if len(node.input) <= 4] == [4, 3, 3, 3, 4]
