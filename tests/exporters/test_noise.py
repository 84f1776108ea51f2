"""Correct files of models whose own rounding is larger than the usual tolerances are delivered, and say so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import ParityError
from compressor.formats import Job
from compressor.task.samples import Sample
from exporters import onnx
from tests.exporters.conftest import features_task
from tests.measure.test_float_noise import Sharp
from tests.nets import Scores

TIMED = {0: "batch", 1: "time"}


class Trained(Scores):
    """A recurrent layer with weights as large as training makes them, whose outputs are in the tens."""

    def __init__(self):
        super().__init__(5, 32, 3)
        with torch.no_grad():
            for parameter in self.rnn.parameters():
                parameter.mul_(3)
            self.head.weight.mul_(100)


def test_attention_with_scores_in_the_hundreds_agrees_to_the_noise_of_float32(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 128), Sharp(200.0, width=128)).eval()
    task = features_task({"y": TIMED})
    real = Sample("evaluate", (torch.randn(2, 17, 5),))
    parity = onnx.export(Job(model, task, tmp_path / "model.onnx", onnx.Options(), real=(real,))).parity
    assert parity.passed
    assert parity.noise.largest > 1e-6  # a hundred times what plain layers are off by
    assert parity.largest_error <= 8 * parity.noise.largest
    assert parity.points[-1].origin == "evaluate"


def test_a_tolerance_that_was_given_is_not_widened_by_noise(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 128), Sharp(200.0, width=128)).eval()
    job = Job(model, features_task({"y": TIMED}), tmp_path / "model.onnx", onnx.Options(atol=1e-7, rtol=1e-9))
    with pytest.raises(ParityError, match="it is close everywhere") as caught:
        onnx.export(job)
    assert caught.value.hint.startswith("if the metric bears it, set `atol: ")


def test_a_recurrent_model_in_half_precision_is_off_by_a_part_of_its_outputs(tmp_path):
    torch.manual_seed(0)
    options = onnx.Options(precision="float16")
    parity = onnx.export(Job(Trained().eval(), features_task({"y": TIMED}), tmp_path / "model.onnx", options)).parity
    assert parity.passed
    assert max(point.needed for point in parity.points) > parity.atol
    assert parity.largest_error < 0.005 * max(point.scale for point in parity.points)
