"""Cells in a Python loop: the file takes any length, and holds native nodes if a step is a cell of PyTorch."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.errors import ExportError
from compressor.formats import Job
from exporters.onnx import Options, export
from exporters.passes import fixed_shapes
from tests.exporters.loops.forms import (
    FORMS,
    INPUT,
    SIZES,
    Attends,
    Backward,
    BothWays,
    ByHand,
    EveryStep,
    FirstIsAnother,
    Frames,
    FromTheSecond,
    Greedy,
    LayerAfterLayer,
    Masked,
    Neighbours,
    Numbered,
    Parts,
    Positions,
    Relu,
    Selective,
    Stack,
    StepOfALayer,
    Together,
    Twice,
    TwoBefore,
    Unbound,
    Windows,
    agrees,
    task_for,
)

LOOPS = ("LSTM", "GRU", "RNN", "Scan")
GROUPS = [
    (EveryStep, Positions),
    (Unbound, Relu, Backward),
    (BothWays, Windows, Frames),
    (LayerAfterLayer, Stack),
    pytest.param((Neighbours, FirstIsAnother, FromTheSecond), marks=pytest.mark.slow),
    (ByHand, TwoBefore, Masked),
    (Greedy, Numbered, Selective),
    (Attends, StepOfALayer),
    pytest.param((Twice,), marks=pytest.mark.slow),
]
"""Forms that are one model, as an export takes seconds."""


@pytest.mark.parametrize("forms", GROUPS, ids=lambda forms: "-".join(form.__name__ for form in forms))
def test_loops_agree_at_lengths_that_were_never_traced(tmp_path, forms):
    torch.manual_seed(0)
    model = Together(forms).eval()
    task = task_for(model)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options()))
    agrees(model, task, tmp_path / "model.onnx")
    expected = sum((Counter(FORMS[form]) for form in forms), Counter())
    assert {kind: count for kind, count in artifact.operators.items() if kind in {*LOOPS, "Conv"}} == expected


@given(st.data())
@settings(max_examples=2, deadline=None)
def test_any_stack_of_cells_becomes_as_many_nodes(tmp_path_factory, data):
    kinds = data.draw(st.lists(st.sampled_from([nn.LSTMCell, nn.GRUCell, nn.RNNCell]), min_size=1, max_size=3))
    sizes = [INPUT, *data.draw(st.lists(st.integers(1, 9), min_size=len(kinds), max_size=len(kinds)))]
    backward = data.draw(st.booleans())

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.ModuleList(kind(*pair) for kind, pair in zip(kinds, pairwise(sizes), strict=True))

        def forward(self, x):
            states, outputs = [None] * len(self.cells), []
            for t in reversed(range(x.size(1))) if backward else range(x.size(1)):
                y = x[:, t]
                for layer, cell in enumerate(self.cells):
                    states[layer] = cell(y, states[layer])
                    y = states[layer][0] if isinstance(states[layer], tuple) else states[layer]
                outputs.append(y)
            return torch.stack(outputs, 1)

    model, path = Model().eval(), tmp_path_factory.mktemp("stack") / "model.onnx"
    artifact = export(Job(model, task_for(model), path, Options()))
    agrees(model, task_for(model), path, SIZES[-2:])
    assert sum(artifact.operators.get(kind, 0) for kind in LOOPS) == len(kinds)


@pytest.mark.parametrize(
    "options",
    [
        {"opset": 17, "precision": "float16"},
        {"opset": 23, "precision": "int8", "rounding": {"max_error": 0.5}},
    ],
    ids=str,
)
def test_a_scan_has_every_opset_and_precision(tmp_path, options):
    torch.manual_seed(0)
    model = ByHand(hidden=29).eval()
    task = task_for(model)
    task.batches = lambda generator: iter([(task.example(4, 9), None)] * 3)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options(**options)))
    assert artifact.operators["Scan"] == 1
    assert artifact.parity.passed


def test_a_loop_of_cells_stores_each_weight_once(tmp_path):
    model = BothWays().eval()  # one cell in two loops
    export(Job(model, task_for(model), tmp_path / "model.onnx", Options()))
    initializers = onnx.load(tmp_path / "model.onnx").graph.initializer
    stored = sum(torch.Size(item.dims).numel() for item in initializers if len(item.dims) > 1)
    assert stored == sum(parameter.numel() for parameter in model.cell.parameters())


def test_the_steps_of_a_loop_stream(tmp_path):
    model = EveryStep().eval()
    task = task_for(model)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options(stream=True)))
    assert artifact.operators["LSTM"] == 1
    assert [state.name for state in artifact.step.stream.states] == ["cell.h", "cell.c"]
    assert artifact.step.chained.passed


# --- one length ---


def test_a_file_of_fixed_shapes_has_native_nodes_too(tmp_path):
    model = FromTheSecond().eval()
    artifact = export(Job(model, task_for(model), tmp_path / "model.onnx", Options(shapes={"batch": 1, "time": 6})))
    assert artifact.inputs[0].shape == (1, 6, INPUT)
    assert artifact.operators["LSTM"] == 1
    assert "Shape" not in artifact.operators


class ByHandBackward(Parts):
    def forward(self, x):
        h, outputs = self.zeros(x), []
        for t in reversed(range(x.shape[1])):
            h = torch.tanh(self.start(x[:, t]) + self.norm(h))
            outputs.append(h)
        return torch.stack(outputs, 1), h


def test_scans_are_written_out_at_one_length(tmp_path):
    torch.manual_seed(0)
    model = Together([ByHandBackward, TwoBefore]).eval()
    task = task_for(model)
    export(Job(model, task, tmp_path / "model.onnx", Options()))
    file = fixed_shapes.write(tmp_path / "model.onnx", tmp_path / "fixed.onnx", task, 6)
    assert "Scan" not in {node.op_type for node in onnx.load(file).graph.node}
    agrees(model, task, file, [(1, 6)])


# --- refused ---


class Growing(Parts):
    def forward(self, x):
        h, outputs = None, []
        for t in range(x.shape[1]):
            h = self.pair(torch.cat([x[:, t], x[:, : t + 1].mean(1)], -1), h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class OwnPast(Parts):
    def forward(self, x):
        outputs = [self.start(x[:, 0])]
        for t in range(1, x.shape[1]):
            outputs.append(self.norm(torch.stack(outputs, 1).mean(1) + self.start(x[:, t])))
        return outputs[-1]


class EverySecond(Parts):
    def forward(self, x):
        h = None
        for t in range(0, x.shape[1], 2):
            h = self.pair(torch.cat([x[:, t]] * 2, -1), h)
        return h


class Decides(Parts):
    def forward(self, x):
        h = None
        for t in range(x.shape[1]):
            h = self.pair(torch.cat([x[:, t]] * 2, -1), h)
            if h.sum() > 0:
                h = -h
        return h


class Decays(Parts):
    def forward(self, x):
        total = 0
        for t in range(x.shape[1]):
            total = total + x[:, t] * 0.5**t
        return total


class MiddleIsAnother(Parts):
    def forward(self, x):
        h, c = self.zeros(x), self.zeros(x)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            if t == x.shape[1] // 2:
                h = self.norm(h)
        return h


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Growing, "another size or another setting at every step"),
        (OwnPast, "no part of it repeats"),
        (EverySecond, "makes 3 equal steps at length 6 and 4 at length 8"),
        (Decides, "depends on the values of a tensor at `if h.sum() > 0:`"),
        (Decays, "no part of it repeats"),
        (MiddleIsAnother, "cannot be rolled up"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_loop_whose_steps_differ_is_refused_with_the_reason(tmp_path, form, reason):
    model = form().eval()
    with pytest.raises(ExportError) as caught:
        export(Job(model, task_for(model), tmp_path / "model.onnx", Options()))
    assert reason in caught.value.message
    assert caught.value.hint
    assert not list(tmp_path.iterdir())
