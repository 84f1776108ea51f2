from __future__ import annotations

import subprocess
import sys

import onnxruntime
import pytest
import torch
from torch import nn

import compressor
from compressor.errors import TaskError, UsageError


class Tagger(nn.Module):
    """A keyword argument, a state that may be None, and a dictionary as the result."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x, state=None, *, scale):
        outputs, state = self.rnn(x * scale, state)
        return {"logits": self.head(outputs), "state": state}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 16, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


def exported(tmp_path, **options):
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    return path, compressor.export(Tagger(), torch.randn(1, 7, 5), path, kwargs={"scale": torch.tensor(2.0)}, **options)


def test_a_model_and_its_arguments_are_all_that_an_export_needs(tmp_path):
    path, artifact = exported(tmp_path, opset=17)
    assert {info.name: info.shape for info in artifact.inputs} == {"x": ("batch", "time", 5), "scale": ()}
    assert artifact.parity.passed
    assert len({(point.batch, point.length) for point in artifact.parity.points}) == 5
    assert artifact.opset == 17
    session = onnxruntime.InferenceSession(path)
    x = torch.randn(4, 19, 5)
    torch.manual_seed(0)
    expected = Tagger().eval()(x, scale=torch.tensor(0.5))
    logits, state = session.run(None, {"x": x.numpy(), "scale": torch.tensor(0.5).numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected["logits"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(state), expected["state"], atol=1e-5, rtol=1e-4)


def test_programs_that_run_the_file_and_its_steps_are_beside_it(tmp_path):
    path = tmp_path / "model.onnx"
    compressor.export(Plain(), torch.randn(2, 7, 5), path, stream=True)
    for name in ("model", "model.step"):
        ran = subprocess.run(
            [sys.executable, tmp_path / "use" / f"{name}.py"], capture_output=True, text=True, check=True
        )
        assert float(ran.stdout.removeprefix("largest difference from the example: ")) < 1e-6
    assert not (tmp_path / "model.step.py").exists()


def test_no_programs_are_written_if_they_are_not_wanted(tmp_path):
    exported(tmp_path, programs=False)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_the_model_stays_as_it_was(tmp_path):
    model = Tagger().train()
    names = list(model.__dict__)
    compressor.export(model, torch.randn(1, 7, 5), tmp_path / "m.onnx", kwargs={"scale": torch.tensor(2.0)})
    assert model.training
    assert list(model.__dict__) == names


@pytest.mark.parametrize(
    ("dynamic", "shape"), [(None, (1, 7, 5)), ({"x": {1: "time"}, "scale": {}}, (1, "time", 5)), ("found", None)]
)
def test_axes_are_open_as_the_caller_says(tmp_path, dynamic, shape):
    _, artifact = exported(tmp_path, dynamic=dynamic)
    assert artifact.inputs[0].shape == (shape or ("batch", "time", 5))


def test_weights_are_rounded_on_the_data_that_the_caller_gives(tmp_path):
    calls = [compressor.Call(torch.randn(3, 9, 5), scale=torch.tensor(1.0)) for _ in range(2)]
    path, artifact = exported(tmp_path, precision="int8", calibration=calls, lengths=(2, 30))
    assert artifact.quantization is not None
    assert artifact.quantization.samples == 6
    assert (tmp_path / "model.onnx") == path
    assert max(point.length for point in artifact.parity.points) == 30


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("m.bin", {}, "the ending of m.bin names no format"),
        ("m.mnn", {"precision": "int8"}, "format `mnn` has no option `precision`"),
        ("m.onnx", {"precision": "int9"}, "`precision` of format `onnx`"),
        ("m.onnx", {"opsett": 17}, "format `onnx` has no option `opsett`"),
    ],
)
def test_an_option_that_the_format_does_not_have_is_refused(tmp_path, name, options, text):
    with pytest.raises(UsageError, match=text):
        compressor.export(nn.Linear(3, 2), torch.randn(1, 3), tmp_path / name, **options)


def test_what_cannot_be_right_is_refused_with_its_cause(tmp_path):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand(())

    with pytest.raises(TaskError, match="does not run on the given arguments"):
        compressor.export(nn.Linear(3, 2), torch.randn(1, 4), tmp_path / "m.onnx")
    with pytest.raises(TaskError, match="draws random numbers"):
        compressor.export(Noisy(), torch.randn(2, 4), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_the_package_and_the_name_of_the_function_load_no_torch():
    script = "import sys, compressor; print('export' in compressor.__all__, 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["True", "False"]
