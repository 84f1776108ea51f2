"""A cell of the model's own code from the method to its files: fewer units, a whole-sequence file and a step file."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.methods.base import Context, State
from compressor.methods.magnitude import Magnitude
from compressor.progress import Silent
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.surgery.own_cells import HIDDEN, INPUT, models
from tests.tolerances import EXPORTED_FLOAT32

TIMED = {0: "batch", 1: "time"}


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the copy of a scripted module, by PyTorch
def test_a_scripted_layer_is_refused_by_that(tmp_path):
    model = models()["ScriptedLayer"].eval()
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(INPUT), model, length=6, max_length=12)
    with pytest.raises(ExportError, match=r"`rnn` is compiled by `torch\.jit\.script`") as error:
        export(Job(model, task, tmp_path / "model.onnx", Options()))
    assert "without `torch.jit.script`" in error.value.hint


@pytest.mark.slow
def test_a_peephole_lstm_in_python_loses_units_is_exported_and_streams(tmp_path):
    torch.manual_seed(0)
    model = models()["Peephole"].eval()
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(INPUT), model, length=6, max_length=12)
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent())
    step = Magnitude(prune="units", count=5)
    step.check_task(model, task)
    smaller = step.apply(State(model), context).state.model
    artifact = export(Job(smaller, task, tmp_path / "model.onnx", Options(stream=True)))
    check_file(tmp_path / "model.onnx", smaller, task, ((1, 1), (4, 37)), **EXPORTED_FLOAT32)
    assert artifact.step.parity.passed
    assert [state.name for state in artifact.step.stream.states] == ["cell.states.0", "cell.states.1"]
    assert {state.shape for state in artifact.step.stream.states} == {(1, HIDDEN - 5)}
