"""Encoders with a causal mask and without `is_causal`: PyTorch's comparison of its values is left out."""

import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.nn.attention.plain import plain_attention
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.surgery.speech import Both, Masked

MODELS = {"encoder": lambda: Masked(hint=False), "both": Both}


@pytest.mark.parametrize("model", MODELS)
def test_the_outputs_are_the_same_and_everything_is_set_back(model):
    torch.manual_seed(0)
    built, x = MODELS[model]().double().eval(), torch.randn(2, 7, 5, dtype=torch.float64)
    detect = nn.modules.transformer._detect_is_causal_mask
    with torch.no_grad(), plain_attention():
        inside = built(x)
    assert nn.modules.transformer._detect_is_causal_mask is detect
    with torch.no_grad():
        torch.testing.assert_close(inside, built(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_the_file_is_right_at_other_lengths(model, tmp_path):
    torch.manual_seed(0)
    built, axes = MODELS[model]().eval(), {0: "batch", 1: "time"}
    task, path = RandomTask({"x": axes}, {"y": axes}, normal(5), built), tmp_path / "model.onnx"
    export(Job(built, task, path, Options(format="onnx")))
    check_file(path, built, task)
