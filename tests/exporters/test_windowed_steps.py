"""Causal convolutions step by step in formats beside ONNX, each compared with PyTorch in its own runtime."""

import pytest
import torch

from compressor.formats import EXPORTERS, Job
from compressor.runtimes.steps import Steps
from tests.exporters.conftest import features_task
from tests.exporters.onnx_files.test_step import INPUT, TIMED, Windowed
from tests.tolerances import EXPORTED_FLOAT32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnn", "ncnn", "c"])
def test_a_step_gives_what_the_whole_sequence_gives(name, tmp_path):
    torch.manual_seed(0)
    model, entry = Windowed().eval(), EXPORTERS[name]
    options = entry.options.model_validate({"form": "step"})
    path = tmp_path / options.file_name()
    artifact = entry.export(Job(model, features_task({"y": TIMED}), path, options))
    assert [state.name for state in artifact.stream.states] == ["padded.x", "chomped.x", "rnn.h"]
    features = torch.randn(1, 40, INPUT)
    with torch.no_grad():
        expected = model(features)
    found = Steps(tmp_path / artifact.path)(features)
    torch.testing.assert_close(found, expected, **EXPORTED_FLOAT32)
