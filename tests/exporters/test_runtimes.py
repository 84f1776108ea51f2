"""Files of other formats, each run in its own runtime; what a runtime gets wrong is refused with the remedy."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from torch import nn

from compressor.errors import ExportError, ParityError, UsageError
from compressor.formats import EXPORTERS, Job
from compressor.measure import latency, memory
from compressor.runtimes.forward import Fixed, open_forward
from compressor.runtimes.runtime_file import open_file
from compressor.runtimes.steps import Steps
from compressor.testing import RandomTask, random_lengths
from exporters import mnn, ncnn, ort
from exporters.onnx import Options as OnnxOptions
from exporters.onnx import export as export_onnx
from tests.exporters.conftest import features_task
from tests.exporters.onnx_files.test_step import Decoder
from tests.surgery import topologies
from tests.tolerances import EXPORTED_FLOAT32

TIMED = {0: "batch", 1: "time"}
FORMATS = ("ort", "mnn", "ncnn")


class Tagger(nn.Module):
    """A recurrent layer and a head."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.rnn = kind(5, 7, batch_first=True, **options)
        self.head = nn.Linear(7, 3)

    def forward(self, features):
        return self.head(self.rnn(features)[0])


SHARED = {}
"""Of the models below: each is exported to ONNX once for all formats."""


@functools.cache
def _task():
    return features_task({"scores": TIMED})


def _model(build=Tagger, **options):
    torch.manual_seed(0)
    return build(**options).eval()


@pytest.fixture(scope="module")
def lstm():
    return _model()


@pytest.fixture(scope="module")
def relu():
    return _model(kind=nn.RNN, nonlinearity="relu")


@pytest.fixture(scope="module", params=[(name, form) for form in ("sequence", "step") for name in FORMATS])
def exported(request, lstm, tmp_path_factory):
    name, form = request.param
    exporter = EXPORTERS[name]
    folder = tmp_path_factory.mktemp("files")
    artifact = exporter.export(Job(lstm, _task(), folder / f"model.{name}", exporter.options(form=form), shared=SHARED))
    return lstm, folder / artifact.path, artifact


def test_a_file_agrees_with_pytorch_in_its_own_runtime_at_sizes_never_seen(exported):
    model, path, artifact = exported
    forward = open_forward(path, _task())
    assert isinstance(forward, Steps) == (artifact.stream is not None)
    features = torch.randn(4, 23, 5)
    with torch.no_grad():
        torch.testing.assert_close(forward(features), model(features), **EXPORTED_FLOAT32)
    forward.close()
    assert artifact.parity.passed
    assert artifact.runtime.startswith({"ort": "ONNX R", "mnn": "MNN 3", "ncnn": "ncnn 1"}[artifact.format])


def test_every_file_that_the_phone_needs_counts_and_is_there(exported):
    _, path, artifact = exported
    needed = [path, *(path.parent / part.path for part in artifact.parts if part.shipped)]
    assert artifact.bytes == sum(file.stat().st_size for file in needed)
    assert {file.name for file in path.parent.iterdir()} == {path.name, *(part.path for part in artifact.parts)}


def test_files_of_several_runtimes_are_timed_in_turns_and_know_their_memory(lstm, tmp_path):
    task, inputs = _task(), (torch.randn(1, 11, 5),)
    paths = []
    for exporter in (ort, mnn):
        name = exporter.__name__.rpartition(".")[2]
        paths.append(tmp_path / exporter.export(Job(lstm, task, tmp_path / f"model.{name}", exporter.Options())).path)
    times, (ratio,) = latency.compare(paths, [inputs] * 2, batch=1, length=11, rounds=8, runs=2)
    assert [time.runtime.split()[0] for time in times] == ["ONNX", "MNN"]
    assert all(0 < time.p10 <= time.p50 <= time.p90 for time in times)
    assert ratio.ratio > 0
    assert memory.peak(paths[1], inputs) > 0


class ComputedKernel(nn.Module):
    """A convolution along time whose kernel is as long as the sequence."""

    def forward(self, x):
        ages = torch.arange(x.shape[1], device=x.device).flip(0)
        kernel = torch.exp(-ages.to(x.dtype))[None, None]
        return nn.functional.conv1d(nn.functional.pad(x.transpose(1, 2)[:, :1], (x.shape[1] - 1, 0)), kernel)


def test_what_the_converter_of_mnn_does_not_take_is_named(tmp_path):
    task = RandomTask(
        {"features": {0: "batch", 1: "time"}},
        {"y": {0: "batch", 2: "time"}},
        lambda batch, length: (torch.randn(batch, length, 4),),
    )
    job = Job(ComputedKernel(), task, tmp_path / "model.mnn", mnn.Options())
    with pytest.raises(ExportError, match="does not take ONNX::Conv as it stands there"):
        mnn.export(job)


@pytest.mark.parametrize(("exporter", "title"), [(mnn, "MNN"), (ncnn, "ncnn")])
def test_a_layer_of_relu_that_is_computed_as_tanh_is_refused_with_the_remedy(relu, exporter, title, tmp_path):
    with pytest.raises(ParityError, match="disagrees with PyTorch") as caught:
        exporter.export(Job(relu, _task(), tmp_path / "model", exporter.Options(), shared=SHARED))
    assert f"{title} computes an RNN of relu as one of tanh" in caught.value.hint
    assert "`form: step`" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_remedies_work(relu, tmp_path):
    fixed = mnn.export(Job(relu, _task(), tmp_path / "fixed.mnn", mnn.Options(length=6), shared=SHARED))
    assert fixed.inputs[0].shape == (1, 6, 5)
    step = ncnn.export(Job(relu, _task(), tmp_path / "model.step.ncnn", ncnn.Options(form="step"), shared=SHARED))
    assert (fixed.parity.passed, step.parity.passed) == (True, True)


def test_one_length_is_unrolled_right_in_both_directions(tmp_path):
    model = nn.Sequential(nn.RNN(5, 4, 2, nonlinearity="relu", bidirectional=True, batch_first=True), _First())
    torch.manual_seed(0)
    artifact = mnn.export(Job(model.eval(), _task(), tmp_path / "model.mnn", mnn.Options(length=3)))
    assert max(point.max_absolute for point in artifact.parity.points) < 1e-5


class _First(nn.Module):
    def forward(self, both):
        return both[0]


def test_a_file_of_one_length_takes_samples_one_by_one_and_no_other_length(lstm, tmp_path):
    mnn.export(Job(lstm, _task(), tmp_path / "model.mnn", mnn.Options(length=6), shared=SHARED))
    forward = open_forward(tmp_path / "model.mnn", _task())
    assert isinstance(forward, Fixed)
    features = torch.randn(3, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(forward(features), lstm(features), **EXPORTED_FLOAT32)
    with pytest.raises(ExportError, match="takes sequences of 6 positions, and was given 7") as caught:
        forward(torch.randn(3, 7, 5))
    assert "form: step" in caught.value.hint
    with pytest.raises(UsageError, match=r"wants torch\.float32, got torch\.float64"):
        open_file(tmp_path / "model.mnn")(features[:1].double())


def test_ncnn_gets_an_aaren_by_way_of_torchscript(tmp_path):
    task = features_task({"states": TIMED}, length=6, max_length=12)
    artifact = ncnn.export(Job(_model(Decoder), task, tmp_path / "model.step.ncnn", ncnn.Options(form="step")))
    assert artifact.parity.passed
    assert artifact.stream.grows


def test_an_onnx_file_is_checked_in_other_runtimes(lstm, relu, tmp_path):
    options = OnnxOptions(check_in=("openvino", "tract"))
    found = export_onnx(Job(lstm, _task(), tmp_path / "model.onnx", options, shared=SHARED)).checks
    assert [(check.runtime.split()[0], check.parity.passed) for check in found] == [("OpenVINO", True), ("tract", True)]
    with pytest.raises(ParityError, match="is right in ONNX Runtime and disagrees with PyTorch in tract") as caught:
        export_onnx(Job(relu, _task(), tmp_path / "relu.onnx", OnnxOptions(check_in=("tract",)), shared=SHARED))
    assert "relu as one of tanh" in caught.value.hint
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_what_openvino_computes_wrong_is_refused_with_what_is_known_of_it(tmp_path):
    torch.manual_seed(0)
    model = topologies.Packed(topologies.CELLS["rnn_tanh"]).eval()
    task = RandomTask(
        {"features": TIMED, "lengths": {0: "batch"}},
        {"scores": TIMED},
        lambda batch, length: (torch.randn(batch, length, topologies.INPUT), random_lengths(batch, length)),
    )
    with pytest.raises(ParityError, match="is right in ONNX Runtime and disagrees with PyTorch in OpenVINO") as caught:
        export_onnx(Job(model, task, tmp_path / "model.onnx", OnnxOptions(check_in=("openvino",))))
    assert "if only some lengths are wrong, it is its cache of compiled subgraphs" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_and_a_missing_description_are_errors(lstm, tmp_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.mnn"
    mnn.export(Job(lstm, _task(), path, mnn.Options(), shared=SHARED))
    (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    with pytest.raises(ExportError, match=r"has no description model\.mnn\.json beside it"):
        open_file(tmp_path / path.name)
    description = json.loads(path.with_name("model.mnn.json").read_text())
    (tmp_path / "model.mnn.json").write_text(json.dumps(description))
    with pytest.raises(ExportError, match=r"model\.mnn in MNN failed"):
        open_file(tmp_path / path.name)(torch.zeros(1, 1, 5))


def test_options_that_cannot_be_meant_are_refused(lstm, tmp_path):
    with pytest.raises(ValueError, match="`length` is an option of whole sequences"):
        mnn.Options(form="step", length=4)
    with pytest.raises(ValueError, match="`chunk` is an option of steps"):
        ort.Options(chunk=4)
    with pytest.raises(ExportError, match="length is 400, but the task's sequences have 1 to 29"):
        mnn.export(Job(lstm, _task(), tmp_path / "model.mnn", mnn.Options(length=400), shared=SHARED))
