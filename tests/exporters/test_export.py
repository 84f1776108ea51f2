from __future__ import annotations

import copy
import errno
import gzip
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import compressor.files
from compressor.errors import ExportError, OutputError, ParityError
from compressor.formats import Job
from compressor.report import Part
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask
from exporters.onnx import Options, export
from exporters.passes import external_data
from tests.exporters.agreement import assert_agrees
from tests.exporters.conftest import features_task
from tests.progress import Recorder

ROOT = Path(__file__).parents[2]

AGAIN = """
import sys
from pathlib import Path
import torch
from compressor.formats import Job
from exporters.onnx import Options, export
from tests.exporters.conftest import features_task
from tests.exporters.test_export import Tagger
torch.manual_seed(0)
model = Tagger()
torch.manual_seed(1)
print(export(Job(model, features_task(), Path(sys.argv[1]), Options())).sha256)
"""


class Tagger(nn.Module):
    """A GRU and a Linear layer; `wide` so that the exporter's own limit for folding constants is passed."""

    def __init__(self, wide=9):
        super().__init__()
        self.gru = nn.GRU(5, 7, batch_first=True, dropout=0.0)
        self.wide = nn.Linear(7, wide)
        self.head = nn.Linear(wide, 3)

    def forward(self, features):
        return self.head(self.wide(self.gru(features)[0]).relu())


class Fails(nn.Module):
    """Calls `function` on the features, after a GRU so that a mended layer is part of the story."""

    def __init__(self, function):
        super().__init__()
        self.gru = nn.GRU(5, 5, batch_first=True)
        self.cell = nn.GRUCell(5, 5)
        self.function = function

    def forward(self, features):
        return self.function(self, self.gru(features)[0])


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    torch.manual_seed(0)
    model, progress = Tagger().train(), Recorder()
    before = copy.deepcopy(model.state_dict())
    path = tmp_path_factory.mktemp("tagger") / "deep" / "tagger.onnx"
    artifact = export(Job(model, features_task(), path, Options(), progress=progress))
    return model, before, path, artifact, progress


def test_the_artifact_tells_the_facts_about_the_file(tagger):
    *_, path, artifact, _ = tagger
    content = path.read_bytes()
    assert artifact.bytes == len(content)
    assert artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert artifact.gzip_bytes <= len(gzip.compress(content, mtime=0)) + 32
    assert (artifact.format, artifact.path, artifact.opset, artifact.ir_version) == ("onnx", "tagger.onnx", 18, 8)
    assert artifact.operators["GRU"] == 1
    assert sum(artifact.operators.values()) == len(onnx.load(path).graph.node)


def test_the_file_is_alone_in_its_folder_and_readable_for_all(tagger):
    _, _, path, *_ = tagger
    assert [entry.name for entry in path.parent.iterdir()] == ["tagger.onnx"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_model_is_not_changed_by_an_export(tagger):
    model, before, *_ = tagger
    assert model.training
    assert model.gru.training
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert nn.GRU.forward.__module__ == "torch.nn.modules.rnn"


def test_debugging_metadata_is_stripped(tagger):
    _, _, path, *_ = tagger
    model = onnx.load(path)
    nodes = list(model.graph.node)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in nodes)
    assert not any(value.metadata_props for value in (*model.graph.input, *model.graph.output))
    assert not any(initializer.metadata_props for initializer in model.graph.initializer)
    assert not model.graph.value_info
    assert str(ROOT).encode() not in path.read_bytes()


def test_progress_reaches_its_total(tagger):
    *_, progress = tagger
    (bar,) = progress.bars
    assert bar.description == "export tagger.onnx"
    assert bar.done == bar.total == len(bar.notes) + len(progress.said)


def test_another_process_and_hash_seed_give_the_same_bytes_and_a_clean_terminal(tagger, tmp_path):
    *_, artifact, _ = tagger
    found = subprocess.run(
        [sys.executable, "-c", AGAIN, str(tmp_path / "again.onnx")],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "77", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [artifact.sha256]
    assert found.stderr == ""


@pytest.mark.parametrize(("opset", "ir_version"), [(17, 8), (23, 11)])
def test_the_file_has_the_opset_and_ir_version_that_were_asked_for(tmp_path, opset, ir_version):
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    # The second width is beyond what the exporter folds by itself (8192 elements).
    artifact = export(Job(Tagger(wide=1201), features_task(), path, Options(opset=opset, ir_version=ir_version)))
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == artifact.ir_version == ir_version
    assert artifact.operators == {"Add": 2, "GRU": 1, "MatMul": 2, "Relu": 1, "Squeeze": 1, "Transpose": 2}


def test_an_opset_that_the_operators_need_is_never_missed_silently(tmp_path):
    model = Fails(lambda self, x: x.max(1).values)  # ReduceMax takes its axes otherwise before opset 18
    with pytest.raises(ExportError, match="cannot be written in opset 17") as caught:
        export(Job(model, features_task(), tmp_path / "model.onnx", Options(opset=17)))
    assert caught.value.hint == "set opset to 18"


def unroll(self, x):
    state = x.new_zeros(x.size(0), 5)
    for step in range(x.size(1)):
        state = self.cell(x[:, step], state)
    return state


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        (
            lambda self, x: torch.stack([x[:, : step + 1].mean(1) for step in range(x.size(1))]),
            "the model's code fixes axis `time` of input `features` to the 11 of the example, and its loops .* another "
            "size or another setting at every step",
            "give every step tensors of one size",
        ),
        (
            lambda self, x: torch.stack([x[row] for row in range(x.size(0))]),
            "the model's code fixes axis `batch` of input `features` to the 3 of the example",
            "leave `batch` out",
        ),
        (
            lambda self, x: x if x.sum() > 0 else -x,
            "the model's code depends on the values of a tensor at `lambda self, x: x if x.sum.*",
            "torch.where",
        ),
        (lambda self, x: torch.special.bessel_j0(x), "`.*bessel_j0` has no ONNX form in opset 18", "other operations"),
        (
            lambda self, x: (x.sum(), (x.mean(), x.std())),
            "the model gives a tuple; only a tensor or a flat tuple",
            "`forward` returns the tensors",
        ),
        (lambda self, x: {"y": x}, "the model gives a dict; only a tensor or a flat tuple", "wrap the model"),
        (lambda self, x: (x, x), "the model gives 2 outputs, but the task's `outputs` names 1", "name every tensor"),
        (
            lambda self, x: x @ x,
            r"the model fails on the task's example \(features \(3, 11, 5\)\): RuntimeError: ",
            "`example` must give what `forward` takes",
        ),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused_with_the_reason(tmp_path, function, message, hint):
    with pytest.raises(ExportError, match=message) as caught:
        export(Job(Fails(function), features_task(), tmp_path / "model.onnx", Options()))
    assert len(caught.value.message) < 500
    assert caught.value.hint is not None
    assert re.search(hint, caught.value.hint)
    assert not list(tmp_path.iterdir())
    assert nn.GRU.forward.__module__ == "torch.nn.modules.rnn"


def test_a_model_in_double_precision_is_refused_by_the_name_of_its_weight(tmp_path):
    with pytest.raises(ExportError, match=r"`gru.weight_ih_l0` is float64, and only float32 models are exported"):
        export(Job(Tagger().double(), features_task(), tmp_path / "model.onnx", Options()))


def test_a_file_that_disagrees_is_not_kept_and_the_old_one_stays(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    model = Fails(lambda self, x: x * 2 if x.size(1) > 20 else x)  # traced at 11: only one branch is in the file
    with pytest.raises(ParityError, match="disagrees with PyTorch") as caught:
        export(Job(model, features_task({"y": {0: "batch", 1: "time"}}), path, Options()))
    rows = caught.value.message.splitlines()[2:]
    assert [row.split()[1] for row in rows if "too large" in row] == ["29", "29"]
    assert len(rows) >= 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"older"


def test_a_fixed_axis_is_exported_when_the_task_leaves_it_out(tmp_path):
    task = RandomTask(
        {"features": {0: "batch"}},
        {"state": {0: "batch"}},
        lambda batch, length: (torch.randn(batch, length, 5),),
        length=2,
        min_length=2,
        max_length=2,
    )
    artifact = export(Job(Fails(unroll), task, tmp_path / "model.onnx", Options()))
    assert artifact.inputs[0].shape == ("batch", 2, 5)
    assert artifact.parity.passed


def test_a_model_over_protobufs_limit_has_its_weights_in_a_file_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(external_data, "MAX_MESSAGE_BYTES", 1000)
    torch.manual_seed(0)
    model = Tagger(wide=65).eval()
    artifact = export(Job(model, features_task(), tmp_path / "model.onnx", Options()))
    data = (tmp_path / "model.onnx.data").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert artifact.parts == (Part(path="model.onnx.data", bytes=len(data), sha256=digest, purpose="weights"),)
    assert artifact.bytes == len(data) + (tmp_path / "model.onnx").stat().st_size
    assert len(data) > 1000 > (tmp_path / "model.onnx").stat().st_size - 3000
    features = torch.randn(4, 6, 5)
    assert_agrees(tmp_path / "model.onnx", model, features)


def test_a_model_over_protobufs_limit_is_refused_in_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(external_data, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ExportError, match=r"weights take [0-9]+ bytes, and one file holds at most 1000"):
        export(Job(Tagger(wide=65), features_task(), tmp_path / "model.onnx", Options(external_data=False)))
    assert not list(tmp_path.iterdir())


def test_a_file_and_its_data_are_both_written_or_neither(tmp_path, monkeypatch):
    calls = []

    def full_at_the_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compressor.files.os, "fsync", full_at_the_second)
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        export(Job(Tagger(wide=65), features_task(), tmp_path / "model.onnx", Options(external_data=True)))
    assert not list(tmp_path.iterdir())


def test_the_artifact_says_what_runtime_the_file_needs(tagger):
    *_, artifact, _ = tagger
    assert artifact.needs == "ONNX Runtime 1.14"


def test_a_disk_that_fills_up_leaves_no_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compressor.files.os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*model.onnx: No space left on device"):
        export(Job(nn.Sequential(nn.Linear(5, 3)), features_task(), tmp_path / "model.onnx", Options()))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*model.onnx"):
        export(Job(nn.Sequential(nn.Linear(5, 3)), features_task(), tmp_path / "file" / "model.onnx", Options()))


def test_a_model_with_length_one_only_is_exported_as_a_step(tmp_path):
    artifact = export(
        Job(Tagger(), features_task(length=1, min_length=1, max_length=1), tmp_path / "step.onnx", Options())
    )
    assert artifact.inputs[0].shape == ("batch", 1, 5)
    assert OnnxFile(tmp_path / "step.onnx")(torch.randn(4, 1, 5)).shape == (4, 1, 3)
