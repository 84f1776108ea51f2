from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

import compressor
from exporters.capture import function_library, program


@pytest.fixture
def traced():
    return program.capture(nn.Linear(3, 2).eval(), [torch.zeros(2, 3)], {"x": {0: "batch"}})


def test_the_library_of_an_opset_is_read_once(traced, monkeypatch):
    read = []
    original = ONNXRegistry.from_torchlib

    def counted(cls, opset_version):
        read.append(opset_version)
        return original(opset_version)

    monkeypatch.setattr(function_library, "_libraries", {})
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", classmethod(counted))
    graphs = [program.translate(traced, opset) for opset in (18, 18, 19, 18)]
    assert read == [18, 19]
    assert [graph.opset_imports[""] for graph in graphs] == [18, 18, 19, 18]


def test_pytorch_is_left_as_it_was(traced):
    before = vars(ONNXRegistry)["from_torchlib"]
    program.translate(traced, 18)
    assert vars(ONNXRegistry)["from_torchlib"] is before


def test_another_pytorch_reads_its_library_every_time(traced, monkeypatch):
    monkeypatch.setattr(function_library, "_registry", lambda: object)
    assert program.translate(traced, 18).opset_imports[""] == 18


def test_the_library_is_the_same_as_pytorch_reads_it(traced, monkeypatch):
    monkeypatch.setattr(function_library, "_libraries", {})
    program.translate(traced, 18)
    ours, theirs = function_library._libraries[18].functions, ONNXRegistry.from_torchlib(opset_version=18).functions
    assert ours.keys() == theirs.keys()
    for operator, functions in theirs.items():
        assert [(each.onnx_function, read(each.signature)) for each in ours[operator]] == [
            (each.onnx_function, read(each.signature)) for each in functions
        ]


def test_a_signature_is_read_when_it_is_needed(traced, monkeypatch):
    monkeypatch.setattr(function_library, "_libraries", {})
    program.translate(traced, 18)
    functions = function_library._libraries[18].functions
    promised = [each.signature for of_one in functions.values() for each in of_one if each.signature is not None]
    assert sum("real" in vars(each) for each in promised) < len(promised) / 10
    assert repr(promised[0]) == repr(promised[0].real)


def test_what_cannot_be_read_late_says_why():
    def read_now():
        raise AttributeError("no such type")

    with pytest.raises(RuntimeError, match="no such type"):
        _ = function_library._Later(read_now).params


def read(signature):
    return signature and [
        getattr(signature, name) for name in ("domain", "name", "overload", "params", "outputs", "since_version")
    ]


class Scripted(nn.Module):
    def forward(self, x):  # each of these is a function whose body the library parses
        return (
            nn.functional.glu(x) / 3.0 + nn.functional.mish(x[:, :3]) + torch.erfc(nn.functional.logsigmoid(x[:, 3:]))
        )


def test_a_body_that_is_read_late_computes_the_same(tmp_path):
    x = torch.randn(5, 6)
    compressor.export(Scripted().eval(), (torch.randn(2, 6),), tmp_path / "scripted.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "scripted.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), Scripted()(x))
