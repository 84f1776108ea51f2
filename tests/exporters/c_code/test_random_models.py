"""Random streaming models as C, compared with PyTorch under sanitizers: `FUZZ_CASES=200 pytest -m slow` for more."""

import os

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from compressor.formats import EXPORTERS, Job
from compressor.testing import RandomTask, normal
from tests.compilers import needs_compiler
from tests.nets import Outputs

pytestmark = [needs_compiler, pytest.mark.slow]
CASES = int(os.environ.get("FUZZ_CASES", "3"))
AXES = {0: "batch", 1: "time"}
SIZES = st.integers(1, 40)
RECURRENT = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
POINTWISE = (
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.LeakyReLU,
    nn.Softplus,
    nn.Hardswish,
    nn.Hardsigmoid,
)


class CausalConvolution(nn.Module):
    """Along time, with zeros in front."""

    def __init__(self, inputs, outputs, kernel, dilation, groups, bias):
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, groups=groups, bias=bias)

    def forward(self, x):
        return self.conv(nn.functional.pad(x.transpose(1, 2), (self.reach, 0))).transpose(1, 2)


class Residual(nn.Module):
    """Added to its input."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.inner(x))


@st.composite
def layers(draw, width):
    """A layer on `width` features, and how many it gives."""
    kind = draw(
        st.sampled_from(["recurrent", "recurrent", "linear", "conv", "depthwise", "norm", "pointwise", "residual"])
    )
    size, bias = draw(SIZES), draw(st.booleans())
    if kind == "recurrent":
        cell, count = draw(st.sampled_from(sorted(RECURRENT))), draw(st.integers(1, 2))
        return Outputs(RECURRENT[cell](width, size, count, bias=bias, batch_first=True)), size
    if kind == "linear":
        return nn.Linear(width, size, bias=bias), size
    if kind in ("conv", "depthwise"):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        deep = kind == "depthwise"
        out = width if deep else size
        return CausalConvolution(width, out, kernel, dilation, width if deep else 1, bias), out
    if kind == "norm":
        return nn.LayerNorm(width), width
    if kind == "residual":
        return Residual(width), width
    return draw(st.sampled_from(POINTWISE))(), width


@st.composite
def models(draw):
    """A stack of layers, and the width of its input."""
    first = width = draw(SIZES)
    stack = [Outputs(nn.GRU(width, (width := draw(SIZES)), batch_first=True))]
    for _ in range(draw(st.integers(0, 4))):
        layer, width = draw(layers(width))
        stack.append(layer)
    return nn.Sequential(*stack).eval(), first


@given(
    made=models(),
    precision=st.sampled_from(["float32", "int8", "int4"]),
    activations=st.sampled_from(["float32", "int16", "int8"]),
    math=st.sampled_from(["library", "fast"]),
    chunk=st.integers(1, 2),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=CASES <= 3)
def test_a_random_streaming_model_is_right_as_c(made, precision, activations, math, chunk, seed, tmp_path_factory):
    torch.manual_seed(seed)
    model, width = made
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.3 / parameter.shape[-1] ** 0.5)  # nothing that amplifies what rounding does
    given_ = {"precision": precision, "math": math, "chunk": chunk}
    if precision != "float32":
        given_ |= {"activations": activations, "quantized_error": 0.9}
    task = RandomTask({"x": AXES}, {"y": AXES}, normal(width), model)
    options = EXPORTERS["c"].options.model_validate(given_)
    folder = tmp_path_factory.mktemp("random")
    artifact = EXPORTERS["c"].export(Job(model, task, folder / options.file_name(), options))
    assert artifact.parity.passed
