from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from exporters.capture import decomposition, program

OPS = torch.ops.aten


class Computes(nn.Module):
    """Calls `function` on an input of two rows."""

    def __init__(self, function):
        super().__init__()
        self.function, self.linear, self.norm = function, nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.function(self, x)


def traced(function):
    return program.capture(Computes(function).eval(), [torch.ones(2, 3)], {"x": {0: "batch"}})


def targets(graph):
    return [node.target for node in graph.nodes if node.op == "call_function" and "sym_size" not in str(node.target)]


@pytest.fixture
def retraced(monkeypatch):
    """The programs that PyTorch decomposes."""
    programs = []
    original = torch.export.ExportedProgram.run_decompositions

    def run_decompositions(self, table=None, **options):
        programs.append(self)
        return original(self, table, **options)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", run_decompositions)
    return programs


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.linear(x).relu().softmax(-1),
        lambda self, x: nn.functional.dropout(x, 0.5, training=False) + 1,
        lambda self, x: x.contiguous() @ self.linear.weight.T,
        lambda self, x: x.reshape(x.shape[0], 3, 1),
        lambda self, x: x.max(1).values + x.shape[0],
        lambda self, x: x.unflatten(1, (3, 1)).flatten(1) + x.reshape(-1, 3),
        lambda self, x: x.to(torch.float64) + x.to(torch.float32),
        lambda self, x: torch.cat(x.chunk(2, 1)[::-1], 1).square(),
        lambda self, x: x.repeat(2, 1).reshape(x.shape[0] * 2, 3, 1),
        lambda self, x: x.narrow(1, 0, 2) + x[:, :1].expand_as(x[:, 1:]),
        lambda self, x: self.norm(x) + x[: x[:, 0].abs().sum().to(torch.int64).item()].sum(),
    ],
)
def test_a_program_of_operators_with_an_onnx_form_is_traced_once(function, retraced):
    ours = program.translate(traced(function), 18)
    assert not retraced
    assert len(ours.graph) > 0


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x.std(1),
        lambda self, x: x.clone().add_(1),
        lambda self, x: x.flatten(),
        lambda self, x: x.reshape(-1, 1),
        lambda self, x: x.to(torch.float64, copy=True),
        lambda self, x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)),
    ],
)
def test_other_programs_are_decomposed(function, retraced):
    program.translate(traced(function), 18)
    assert retraced


def test_a_program_that_is_decomposed_keeps_what_its_views_need(retraced):
    ours = program.translate(traced(lambda self, x: x.T.contiguous().view(3 * x.shape[0]).flatten().chunk(3)[0]), 18)
    assert retraced
    assert len(ours.graph) > 0


def test_only_renaming_operators_are_replaced(retraced):
    def function(self, x):
        dropped = nn.functional.dropout(x.contiguous(), 0.5, training=False)
        return dropped.T.reshape(3, x.shape[0], 1)

    given = traced(function)
    assert decomposition.unchanged(given, {}, lambda target: True)
    assert targets(given.graph) == [OPS.permute.default, OPS.reshape.default]


def test_a_view_behind_a_copy_that_is_dropped_is_written(retraced):
    def function(self, x):
        return (x.transpose(0, 1).contiguous().view(-1) * 2).sum()

    given = traced(function)
    assert decomposition.unchanged(given, {}, lambda target: True)
    inputs = [node for node in given.graph.nodes if node.op == "placeholder"]
    values = [torch.ones(5, 3) if node.name == "x" else torch.zeros(node.meta["val"].shape) for node in inputs]
    assert float(torch.fx.Interpreter(given.graph_module).run(*values)[0]) == 30.0


def test_a_decomposed_program_asks_for_no_layout_in_memory(retraced):
    from torch.onnx._internal.exporter import _fx_passes

    given = traced(lambda self, x: x.clone().add_(1).transpose(0, 1).contiguous().view(-1))
    with decomposition.left_out():
        found = targets(_fx_passes.decompose_with_registry(given, ONNXRegistry.from_torchlib(opset_version=18)).graph)
    assert retraced
    assert OPS.reshape.default in found
    assert OPS.view.default not in found


def _computed(program, x):
    """What a program gives for `x`."""
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    states = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    weights = program.state_dict | program.constants
    values = [x if states[node.name] is None else weights[states[node.name]] for node in inputs]
    return torch.fx.Interpreter(program.graph_module).run(*values)[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: torch.cat(x.chunk(2, 1)[::-1], 1),
        lambda self, x: torch.cat(x.chunk(4, -1)[::-1], 1),
        lambda self, x: (x + 1).square(),
        lambda self, x: x.narrow(1, 1, 2).narrow(-1, 0, 1),
        lambda self, x: x[:, :1].expand_as(x),
        lambda self, x: ((x > 0).__and__(x < 1)).__or__(x < -1),
        lambda self, x: torch.cat([x, x], 1).reshape(2 * x.shape[0], -1),
        lambda self, x: self.norm(x),
        lambda self, x: nn.functional.batch_norm(x, self.norm.running_mean + 1, self.norm.running_var, eps=0.25),
        lambda self, x: x.to(torch.float64).to(torch.float32, copy=False),
        lambda self, x: x.new_zeros(x[:, 0].abs().sum().to(torch.int64).item()) + 1,
    ],
)
def test_an_operator_that_stands_for_another_gives_its_numbers(function):
    torch.manual_seed(0)
    model = Computes(function).eval()
    nn.init.normal_(model.norm.weight)
    x = torch.randn(5, 3)
    given = program.capture(model, [torch.ones(2, 3)], {"x": {0: "batch"}})
    assert decomposition.unchanged(given, {}, lambda target: True)
    torch.testing.assert_close(_computed(given, x), model(x), atol=0, rtol=0)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x.to(torch.int64).square(),
        lambda self, x: nn.functional.batch_norm(x, None, None, training=True),
        lambda self, x: x.narrow(0, -1, 1),
    ],
)
def test_an_operator_that_may_be_something_else_is_left_to_pytorch(function, retraced):
    ours = program.translate(traced(function), 18)
    assert retraced
    assert len(ours.graph) > 0


def test_dropout_in_training_is_no_renaming():
    given = traced(lambda self, x: nn.functional.dropout(x, 0.5, training=True))
    assert not decomposition.unchanged(given, {}, lambda target: False)
    assert OPS.dropout.default in targets(given.graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.linear(x).contiguous(),
        lambda self, x: nn.functional.dropout(self.linear(x).contiguous(), 0.5, training=False).detach(),
        lambda self, x: (x.contiguous(), self.linear(x), self.linear(x).relu().to(torch.float32)),
        lambda self, x: x.relu().T.contiguous().T,
        lambda self, x: (x.to(torch.float32), self.linear(x)),
        lambda self, x: (x.contiguous().detach(), x.detach(), self.linear(x)),
    ],
)
def test_an_output_that_is_another_tensor_by_a_new_name_is_written(function):
    outputs = program.translate(traced(function), 18).graph.outputs
    results = function(Computes(None).eval(), torch.ones(2, 3))
    assert len(outputs) == (len(results) if isinstance(results, tuple) else 1)
