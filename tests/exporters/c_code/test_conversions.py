"""Layers that conversions make, as C: exact, in 8 bits with whole numbers as inputs, and on an emulated processor."""

import contextlib
from functools import partial

import pytest
import torch
from torch import nn

from compressor.formats import EXPORTERS, Job
from compressor.nn.attention.aaren import AarenAttention
from compressor.runtimes.forward import open_forward
from compressor.testing import RandomTask, normal
from tests.boards import needs_board
from tests.compilers import needs_compiler
from tests.exporters import test_converted
from tests.exporters.test_converted import CLASSES, INPUT, TIMED

pytestmark = [needs_compiler, pytest.mark.slow]
SHARED: dict[tuple[object, ...], object] = {}
"""Exports to ONNX, one of each model."""


class Gathering(nn.Module):
    """Running attention with learned queries, and a head."""

    def __init__(self, **cache):
        super().__init__()
        sizes = {"query_width": 7, "input_width": INPUT, "head_width": 4, "value_head_width": 2, "output_width": 40}
        self.attention = AarenAttention(3, **sizes, **cache, batch_first=True)
        self.head = nn.Linear(40, CLASSES)

    def forward(self, x):
        return self.head(self.attention(x, x, x)[0])


MODELS = {
    "aaren": Gathering,
    "aaren, memory cache": partial(test_converted.asking, Gathering, **test_converted.CACHE),
    **test_converted.MODELS,
}
BUILT: dict[str, tuple[nn.Module, RandomTask]] = {}


def export(name, folder, **options):
    """The artifact and its file of a model of random weights, the same ones in every test."""
    if name not in BUILT:
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        BUILT[name] = model, RandomTask({"x": TIMED}, {"y": TIMED}, normal(INPUT), model)
    model, task = BUILT[name]
    chosen = EXPORTERS["c"].options.model_validate(options)
    path = folder / chosen.file_name()
    return EXPORTERS["c"].export(Job(model, task, path, chosen, shared=SHARED)), path


def farthest(name, path):
    """Largest absolute error of the compiled step at three sizes, one ten times the task's longest."""
    model, task = BUILT[name]
    inputs = [torch.randn(*shape, INPUT) for shape in ((1, 1), (3, 8), (1, 290))]
    with contextlib.closing(open_forward(path, task)) as forward, torch.no_grad():
        return max(float((forward(x) - model(x)).abs().max()) for x in inputs)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_in_c_gives_what_pytorch_gives(tmp_path, name):
    artifact, path = export(name, tmp_path)
    assert artifact.parity.passed
    assert farthest(name, path) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_in_8_bits_with_whole_numbers_and_short_functions_it_stays_close(tmp_path, name):
    artifact, path = export(name, tmp_path, precision="int8", activations="int16", math="fast")
    assert artifact.parity.passed
    assert 1e-5 < farthest(name, path) < 5e-3


@needs_board
@pytest.mark.parametrize("name", ["lssl", "additive", "plstm", "aaren"])
def test_an_emulated_cortex_m4_computes_the_same(tmp_path, name):
    artifact, _ = export(name, tmp_path, target="cortex-m4")
    assert artifact.parity.passed
    assert artifact.emulated.agrees
