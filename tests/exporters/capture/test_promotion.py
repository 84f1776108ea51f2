from __future__ import annotations

import pytest
import torch
from onnx_ir import serde
from torch import nn

from exporters.capture import program, promotion


class Mixed(nn.Module):
    """Calls `function` on a float input and whole numbers."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, lengths):
        return self.function(x, lengths)


FUNCTIONS = [
    lambda x, lengths: torch.sigmoid(x) * 2.0,
    lambda x, lengths: 1 - x / lengths[:, None],
    lambda x, lengths: (x * (torch.arange(x.shape[1]) < lengths[:, None])).sum(1) / lengths,
    lambda x, lengths: (lengths / 2).exp() + x.to(torch.float64).sum(1),
    lambda x, lengths: torch.where(x > 0, x, 0) + lengths.to(torch.float32).mean(),
    lambda x, lengths: x[:, : x.shape[1] - 1] ** 2 + lengths.sum() // 2,
]


def translated(function):
    axes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    inputs = [torch.randn(3, 5), torch.tensor([5, 2, 4])]
    return program.translate(program.capture(Mixed(function).eval(), inputs, axes), 18)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_graph_is_the_one_that_a_run_of_every_node_gives(function, monkeypatch):
    ours = serde.serialize_model(translated(function))
    with monkeypatch.context() as patched:
        patched.setattr(promotion, "_frugal", lambda original, rule_of: original)
        theirs = serde.serialize_model(translated(function))
    for graph in (ours.graph, theirs.graph):
        for node in graph.node:
            node.ClearField("metadata_props")
    assert ours.graph == theirs.graph


def test_only_nodes_that_mix_types_are_run(monkeypatch):
    runs = []
    original = torch.fx.Interpreter.call_function

    def call_function(self, target, args, kwargs):
        runs.append(str(target))
        return original(self, target, args, kwargs)

    monkeypatch.setattr(torch.fx.Interpreter, "call_function", call_function)
    translated(lambda x, lengths: torch.sigmoid(x).tanh() * lengths[:, None])
    assert not any("sigmoid" in run or "tanh" in run for run in runs)
    assert any("mul" in run for run in runs)
