"""Operators for all steps at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporters.loops import vectorized
from exporters.loops.stacked import Stacked

OPERATORS = {
    "linear": lambda x: nn.functional.linear(x, torch.linspace(-1, 1, 28).reshape(7, 4)),
    "layer_norm": lambda x: nn.functional.layer_norm(x, (4,)),
    "softmax": lambda x: x.softmax(1) + x.softmax(-2),
    "broadcast": lambda x: x * torch.arange(4.0) + torch.ones(2, 3, 1),
    "wider": lambda x: x.sum((0, 2)) + torch.ones(5, 1),
    "cat": lambda x: torch.cat([x, torch.ones(2, 3, 4), x.tanh()], 1),
    "stack": lambda x: torch.stack([x, -x], -1),
    "moved": lambda x: x.transpose(0, -1).permute(2, 0, 1).unsqueeze(0).squeeze(0).flip(0),
    "views": lambda x: x.reshape(6, 4).flatten().view(2, -1).expand(3, 2, 12),
    "chosen": lambda x: x.select(1, 2) + x[:, 1:2, :].squeeze(1) + x.argmax(0).sum(0),
    "several": lambda x: x.sum((0, 2)) + x.amax((0, 2)),
    "pieces": lambda x: x.chunk(2, -1)[1] * x.split(1, 0)[0][..., :2] * x.max(1).values[:, None, :2],
    "products": lambda x: x @ torch.ones(4, 2) + torch.bmm(x, x.transpose(1, 2)) @ torch.ones(2, 3, 2),
    "convolution": lambda x: nn.functional.conv1d(x, torch.linspace(-1, 1, 18).reshape(2, 3, 3), padding=1),
    "embedding": lambda x: nn.functional.embedding(x.argmax(-1), torch.linspace(0, 1, 20).reshape(4, 5)),
    "gates": lambda x: nn.functional.glu(x, -1) + x.cumsum(2)[..., :2] + x.flatten(1).mean(1)[:, None, None],
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=list(OPERATORS))
def test_an_operator_for_all_steps_gives_what_it_gives_for_each(operator):
    steps = torch.randn(5, 2, 3, 4)
    traced = torch.export.export(Applied(operator), (steps[0],), strict=False)
    known = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            name = node.name
            constants = traced.graph_signature.inputs_to_lifted_tensor_constants
            known[node] = traced.constants[constants[name]] if name in constants else Stacked(steps)
        elif node.op == "call_function":
            args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), known.get)
            known[node] = result(node, args, kwargs)
        else:
            results = known[node.args[0][0]].value
    torch.testing.assert_close(results, torch.stack([operator(step) for step in steps]))


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def result(node, args, kwargs):
    flat = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Stacked)]
    if not flat:
        return node.target(*args, **kwargs)
    results = vectorized.apply(node.target, args, kwargs)
    assert results is not None, f"no rule for {node.target}"
    return Stacked(tuple(results) if isinstance(results, (tuple, list)) else results)
