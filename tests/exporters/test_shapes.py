"""`shapes`: a file without an open axis, right at exactly these sizes, and evaluated like any other."""

from __future__ import annotations

import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor import Task
from compressor.errors import ExportError, UsageError
from compressor.formats import Job
from compressor.runtimes.forward import open_forward
from compressor.task.guard import GuardedTask
from exporters.onnx import Options, export
from tests.exporters.conftest import features_task

TIMED = {0: "batch", 1: "time"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.norm = nn.GRU(5, 7, batch_first=True, bidirectional=True), nn.LayerNorm(14)
        self.attention = nn.MultiheadAttention(14, 2, batch_first=True)

    def forward(self, features):
        x = self.norm(self.rnn(features)[0])
        return self.attention(x, x, x, need_weights=False)[0], x.mean(1)


TASK = features_task({"y": TIMED, "mean": {0: "batch"}})


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    torch.manual_seed(0)
    path, model = tmp_path_factory.mktemp("fixed") / "model.onnx", Net().eval()
    return model, path, export(Job(model, TASK, path, Options(shapes={"batch": 2, "time": 13})))


def test_no_axis_is_open_and_nothing_asks_for_a_shape(fixed):
    _, path, artifact = fixed
    values = onnx.load(path).graph
    dims = [d for value in (*values.input, *values.output) for d in value.type.tensor_type.shape.dim]
    assert not any(d.HasField("dim_param") for d in dims)
    assert artifact.inputs[0].shape == (2, 13, 5)
    assert not {"Shape", "Range", "Expand", "ConstantOfShape"} & set(artifact.operators)
    assert {(point.batch, point.length) for point in artifact.parity.points} == {(1, 13)}


def test_a_larger_batch_is_run_piece_by_piece(fixed):
    model, path, _ = fixed
    features = torch.randn(5, 13, 5)
    forward = open_forward(path, TASK)
    with torch.no_grad():
        torch.testing.assert_close(forward(features), model(features), atol=1e-5, rtol=1e-4)


def test_another_length_is_refused(fixed):
    _, path, _ = fixed
    with pytest.raises(ExportError, match=r"takes sequences of 13 positions, and was given 12"):
        open_forward(path, TASK)(torch.randn(2, 12, 5))


def test_one_axis_alone_may_be_fixed(tmp_path):
    torch.manual_seed(0)
    artifact = export(Job(Net().eval(), TASK, tmp_path / "model.onnx", Options(shapes={"time": 4})))
    assert artifact.inputs[0].shape == ("batch", 4, 5)
    assert {(point.batch, point.length) for point in artifact.parity.points} == {(1, 4), (2, 4), (5, 4), (3, 4)}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"frames": 3}, "fixes `frames`, but the task's dynamic axes are batch, time"),
        ({"time": 30}, "lengths are 1 to 29"),
    ],
)
def test_axes_and_lengths_that_the_task_does_not_have_are_refused(tmp_path, shapes, message):
    with pytest.raises(UsageError, match=message):
        export(Job(Net(), TASK, tmp_path / "model.onnx", Options(shapes=shapes)))


@pytest.mark.parametrize(
    "wrong",
    [{"shapes": {"time": 0}}, {"shapes": {"time": 3}, "stream": True}, {"float_io": False}, {"precision": "bfloat16"}],
)
def test_options_that_exclude_each_other_are_refused(wrong):
    with pytest.raises(ValidationError):
        Options(**wrong)


class Read(nn.Module):
    """A picture of any width and a text of any length."""

    def __init__(self):
        super().__init__()
        self.conv, self.rnn = nn.Conv2d(1, 3, 3, padding=1), nn.LSTM(2, 3, batch_first=True)

    def forward(self, picture, text):
        columns = self.conv(picture).mean(2)  # (B, 3, W)
        return self.rnn(text)[0] @ columns


class Reading(Task):
    length, max_length = 7, 12

    def model(self):
        torch.manual_seed(0)
        return Read()

    def example(self, batch, length, width=9):
        return torch.randn(batch, 1, 4, width), torch.randn(batch, length, 2)

    batches = loss = evaluate = None


def test_a_further_axis_is_open_in_the_file_and_may_be_fixed(tmp_path):
    task = GuardedTask(Reading(), __file__)
    model, path = task.model(), tmp_path / "model.onnx"
    artifact = export(Job(model, task, path, Options()))
    assert [item.shape for item in artifact.inputs] == [("batch", 1, 4, "width"), ("batch", "time", 2)]
    assert artifact.outputs[0].shape == ("batch", "time", "width")
    assert {point.sizes["width"] for point in artifact.parity.points} == {1, 7, 13, 19}
    artifact = export(Job(model, task, path, Options(shapes={"width": 11})))
    assert artifact.inputs[0].shape == ("batch", 1, 4, 11)
    assert open_forward(path, task).fixed_size("width") == 11
