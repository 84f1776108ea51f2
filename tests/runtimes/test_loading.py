"""Files of strangers: whatever is wrong with one is said before ONNX Runtime is given it in this process."""

from __future__ import annotations

import signal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import ExportError
from compressor.runtimes import loading
from tests.cli.conftest import call

DATA = "weights.bin"


def model(operator="Relu", opset=18, domain="", functions=(), **external):
    """x (2, 3) and, with `external`, weights that lie elsewhere."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xy")
    weights = []
    if external:
        tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            tensor.external_data.add(key=key, value=str(value))
        weights = [tensor]
    inputs = ["x", "w"] if external else ["x"]
    node = helper.make_node("Add" if external else operator, inputs, ["y"], domain=domain)
    graph = helper.make_graph([node], "g", [x], [y], weights)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


GOOD = model()
STRANGE = {
    "empty": (b"", "holds no ONNX model"),
    "no protobuf": (b"GIF89a" + bytes(range(200)), "is not an ONNX file, or is cut off"),
    "another message": (b"\x08\x08", "holds no ONNX model"),
    "cut off": (GOOD[:-20], "is not an ONNX file, or is cut off"),
    "opset": (model(opset=999), "needs opset 999, and onnx .* knows opsets up to"),
    "operator": (model("Flux"), "uses the operator `Flux`, which opset 18 does not have"),
    "later operator": (model("Swish"), "uses the operator `Swish`, which opset 18 does not have"),
    "domain": (model("Flux", domain="acme"), "ONNX Runtime cannot load .*acme"),
    "no data": (model(location="gone.bin", offset=0, length=24), "weights in `gone.bin`, which is not beside it"),
    "parent": (model(location="../secret"), "wants to read weights from `../secret`, which is outside its folder"),
    "absolute": (model(location="/etc/passwd"), "weights from `/etc/passwd`, which is outside its folder"),
    "link": (model(location="link.bin"), "weights from `link.bin`, which is outside its folder"),
    "short": (model(location=DATA, offset=0, length=24), f"weights up to byte 24 of `{DATA}`, which has 7"),
    "negative": (model(location=DATA, offset=-1, length=2), "gives `-1`, `2` as the place of `w`"),
}


@pytest.fixture(params=STRANGE)
def strange(request, tmp_path):
    content, message = STRANGE[request.param]
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(24))
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    (folder / DATA).write_bytes(bytes(7))
    (folder / "model.onnx").write_bytes(content)
    return folder / "model.onnx", message


def test_what_is_wrong_with_a_file_is_said(strange):
    path, message = strange
    with pytest.raises(ExportError, match=message) as caught:
        loading.ensure(path)
    assert caught.value.hint


@pytest.mark.parametrize("command", [("bench",), ("check", "--target", "nnapi")], ids=lambda words: words[0])
def test_a_command_ends_with_an_error_and_no_traceback(strange, command):
    path, _ = strange
    result = call(*command, path)
    assert result.code == 2
    assert "\nerror: " in f"\n{result.err}"
    assert "Traceback" not in result.err


def test_a_file_and_its_data_file_are_loaded(tmp_path):
    (tmp_path / DATA).write_bytes(np.ones((2, 3), np.float32).tobytes())
    (tmp_path / "model.onnx").write_bytes(model(location=DATA, offset=0, length=24))
    loading.ensure(tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx").graph.initializer[0].raw_data == (tmp_path / DATA).read_bytes()


def test_a_crash_of_the_runtime_is_an_error_that_names_the_signal(tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text("import os, signal, sys; sys.stdin.buffer.read(8); os.kill(os.getpid(), signal.SIGSEGV)")
    (tmp_path / "model.onnx").write_bytes(model("Sigmoid"))
    with monkeypatch.context() as patched:
        patched.setattr(loading, "_WORKER", worker)
        patched.setattr(loading, "_server", None)
        with pytest.raises(ExportError, match=rf"ended by {signal.SIGSEGV.name}"):
            loading.ensure(tmp_path / "model.onnx")
    loading.ensure(tmp_path / "model.onnx")
