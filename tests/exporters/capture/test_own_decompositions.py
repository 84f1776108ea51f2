"""Operators without a form in PyTorch's exporter are written by others, and the file is right."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.testing import RandomTask, check_file, normal
from exporters.capture import program
from exporters.onnx import Options, export
from tests.surgery.speech import Automatic

TIMED = {0: "batch", 1: "time"}


class Computes(nn.Module):
    """Calls a function on the inputs (B, T, 5)."""

    def __init__(self, function):
        super().__init__()
        self.function, self.linear = function, nn.Linear(5, 5)

    def forward(self, x):
        return self.function(self.linear(x))


@pytest.mark.parametrize(
    "function",
    [
        functional.rrelu,
        lambda x: functional.rrelu(x, 0.2, 0.9),
        lambda x: x.median(1, keepdim=True).values.expand_as(x),
        lambda x: x - x.median(-1).values[..., None],
        lambda x: x * x.median(1).values[:, None],
        lambda x: torch.cdist(x, x * 2),
        lambda x: torch.cdist(x, x + 1, p=1.0),
    ],
)
def test_what_has_no_form_of_its_own_is_in_the_file(function, tmp_path):
    model = Computes(function).eval()
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), model)
    export(Job(model, task, tmp_path / "model.onnx", Options(format="onnx")))
    check_file(tmp_path / "model.onnx", model, task)


def test_the_median_is_the_lower_one_and_has_a_place():
    model = Computes(lambda x: x.median(1).indices)
    traced = program.capture(model.eval(), [torch.randn(2, 4, 5)], {"x": {0: "batch"}})
    operators = [node.op_type for node in program.translate(traced, 18).graph]
    assert "TopK" in operators


def test_slopes_that_are_drawn_are_refused():
    model = Computes(lambda x: functional.rrelu(x, training=True)).eval()
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), model)
    with pytest.raises(ExportError):
        program.translate(program.capture(model, [task.example(2, 3)[0]], {"x": TIMED}), 18)


def test_autocast_in_the_code_is_refused_with_what_to_do(tmp_path):
    model = Automatic().eval()
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), model)
    with pytest.raises(ExportError, match="computes in bfloat16") as error:
        export(Job(model, task, tmp_path / "model.onnx", Options(format="onnx")))
    assert "enabled=self.training" in error.value.hint
