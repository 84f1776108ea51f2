"""`verify`: what is missing is named; files are run elsewhere and compared; crashes there are findings, not the end."""

import json
import shutil
import sys
import textwrap

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic

from compressor.cli import verify
from compressor.errors import CompressorError, UsageError
from compressor.formats import Job
from compressor.runtimes.emulation import machine as emulated
from exporters.onnx import Options, export
from tests.cli.conftest import call
from tests.exporters.conftest import features_task

STAND_IN = """
    #!{python} -P
    # What qemu-user is asked to do, done by this machine's own Python: -L ROOT -cpu CPU -E NAME=VALUE... PYTHON ...
    import json, os, pathlib, sys
    given = sys.argv[1:]
    if given == ["--version"]:
        print("qemu-aarch64 version {version} (Debian)")
        sys.exit()
    assert given[:1] + given[2:3] == ["-L", "-cpu"], given
    rest = given[4:]
    while rest[0] == "-E":
        rest = rest[2:]
    assert rest[0].endswith("root/usr/bin/python3.13"), rest
    for job in json.loads(pathlib.Path(rest[-1]).read_text()):
        over = any(os.path.exists(job["outputs"] + end) for end in ("", ".error"))
        if "crash" in job["model"] and not over:
            print("running", job["model"], file=sys.stderr)
            os.kill(os.getpid(), 11)
        if not over:
            break
    os.execv(sys.executable, [sys.executable, *rest[1:]])
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no emulator on the PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def lay(cache, version="10.0.13"):
    """A stand-in for the emulated machine: its emulator starts this machine's Python."""
    place = emulated.folder()
    for path in ("root/usr/bin", f"packages/onnxruntime-{onnxruntime.__version__}.dist-info"):
        (place / path).mkdir(parents=True)
    (place / "root/usr/bin/python3.13").touch()
    qemu = cache / "bin" / "qemu-aarch64"
    qemu.write_text(textwrap.dedent(STAND_IN).format(python=sys.executable, version=version).lstrip())
    qemu.chmod(0o755)


def test_what_is_missing_is_named_with_the_command_that_fetches_it(cache, finished):
    result = call("verify", finished[0] / "model.onnx", "--arch", "aarch64")
    assert result.code == 2
    assert "missing: qemu-aarch64, version 10 or newer (of Debian's package qemu-user); a root file sys" in result.err
    assert f"the aarch64 wheels of onnxruntime {onnxruntime.__version__} and NumPy" in result.err
    assert "hint: `compressor verify --arch aarch64 --setup` fetches what is missing" in result.err


def test_an_emulator_that_is_too_old_and_a_wheel_of_another_version_are_named(cache):
    lay(cache, version="7.2.19")
    (wheel,) = (emulated.folder() / "packages").iterdir()
    wheel.rename(wheel.with_name("onnxruntime-1.2.3.dist-info"))
    with pytest.raises(UsageError) as caught:
        emulated.find()
    assert f"{cache / 'bin' / 'qemu-aarch64'} is 7.2.19, and 7.2 was seen to crash" in caught.value.message
    assert "which runs here; that in" in caught.value.message
    assert caught.value.message.endswith("is 1.2.3")


def test_setup_on_a_system_without_debian_packages_says_what_to_do(cache):
    result = call("verify", "--arch", "aarch64", "--setup")
    assert result.code == 2
    assert "there is no `dpkg` here, with which Debian packages are fetched and unpacked" in result.err


def test_files_are_run_elsewhere_and_compared_at_the_tasks_sizes(cache, finished, files):
    lay(cache)
    out = finished[0]
    found = call("verify", out / "original.onnx", out / "model.onnx", "--arch", "aarch64", "--json", "--task",
                 files / "task.py")  # fmt: skip
    first, second = json.loads(found.out)
    assert (found.code, first["agrees"], second["agrees"]) == (0, True, True)
    assert (first["emulated"], first["machine"]) == (True, "aarch64 emulated by qemu 10.0.13 (cortex-a76)")
    assert [(point["batch"], point["length"]) for point in first["parity"]["points"]][:2] == [(1, 2), (2, 5)]
    assert "nothing about speed" in found.err


def test_a_file_that_crashes_there_is_named_and_the_others_are_run(cache, finished):
    lay(cache)
    shutil.copy(finished[0] / "model.onnx", cache / "crash.onnx")
    result = call("verify", cache / "crash.onnx", finished[0] / "model.onnx", "--arch", "aarch64")
    assert result.code == 1
    assert [line.split()[-1] for line in result.out.splitlines()[-2:]] == ["DISAGREES", "agrees"]
    assert "crash.onnx, batch 1, length 32: ONNX Runtime on emulated aarch64 failed (ended by SIGSEGV)" in result.err


def test_an_emulator_that_does_not_start_is_an_error(cache, finished):
    lay(cache)
    (cache / "bin" / "qemu-aarch64").write_text('#!/bin/sh\n[ "$1" = --version ] && echo version 10.1 || exit 3\n')
    result = call("verify", finished[0] / "model.onnx", "--arch", "aarch64")
    assert (result.code, result.err.splitlines()[-1]) == (
        2, "error: ONNX Runtime on emulated aarch64 failed (exit status 3)",
    )  # fmt: skip


def test_another_number_shape_or_type_is_no_agreement(finished):
    path = finished[0] / "model.onnx"
    cases = verify._cases(path, None, 7)
    right = [case.expected for case in cases]
    assert verify._parity(path, cases, right, None, None).passed
    for wrong in (lambda a: a + 2e-4 * np.abs(a).max(), lambda a: a[:, :1], lambda a: a.astype("float64")):
        parity = verify._parity(path, cases, [right[0], [wrong(array) for array in right[1]]], None, None)
        assert [point.within for point in parity.points] == [True, False]
    notes = verify._parity(path, cases, ["killed", [array[:, :1] for array in right[1]]], None, None).points
    assert (notes[0].note, notes[1].note) == ("killed", "output 0 has shape (3, 1), in this machine (3, 2)")
    assert verify._parity(path, cases, [[array + 2e-4 for array in arrays] for arrays in right], 1e-3, 0.0).passed


def test_files_that_round_have_a_wider_tolerance(finished, tmp_path):
    quantize_dynamic(finished[0] / "model.onnx", tmp_path / "int8.onnx")
    assert (verify._rounds(tmp_path / "int8.onnx"), verify._rounds(finished[0] / "model.onnx")) == (True, False)


def test_a_file_that_rounds_may_be_off_by_a_part_of_its_largest_output_and_no_more(finished, tmp_path):
    path = tmp_path / "int8.onnx"
    quantize_dynamic(finished[0] / "model.onnx", path)
    cases = verify._cases(path, None, 7)
    largest = max(np.abs(case.expected[0]).max() for case in cases)
    for part, passed in ((0.01, True), (0.05, False)):
        off = [[array + part * largest for array in case.expected] for case in cases]
        assert verify._parity(path, cases, off, None, None).passed == passed


def test_a_step_file_is_compared_with_states_that_hold_something(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(5, 3, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0]

    task = features_task({"y": {0: "batch", 1: "time"}})
    export(Job(Net().eval(), task, tmp_path / "model.onnx", Options(stream=True)))
    (case, _) = verify._cases(tmp_path / "model.step.onnx", None, 7)
    assert (case.batch, np.abs(case.arrays[-1]).max() > 0.01) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no processor given"),
        (("--arch", "aarch64"), "no file to verify"),
        (("--arch", "aarch64", "none.onnx"), "there is no file `none.onnx`"),
    ],
)
def test_a_call_that_cannot_be_meant(arguments, message):
    result = call("verify", *arguments)
    assert (result.code, message in result.err) == (2, True)


def _machine():
    try:
        return emulated.find()
    except CompressorError:
        return None


EMULATED = pytest.mark.skipif(_machine() is None, reason="compressor verify --arch aarch64 --setup has not been run")


@pytest.mark.qemu
@pytest.mark.slow
@EMULATED
def test_the_real_emulated_runtime_agrees(finished, files):
    out = finished[0]
    result = call("verify", out / "original.onnx", out / "model.onnx", "--arch", "aarch64", "--task", files / "task.py")
    assert (result.code, result.out.count(" agrees")) == (0, 2)


class Layers(torch.nn.Module):
    """A recurrent layer of 40 units and a head over the last position of it."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = kind(5, 40, batch_first=True), torch.nn.Linear(40, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Attention(torch.nn.Module):
    """A Transformer's layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.start = torch.nn.Linear(5, 32)
        self.layer = torch.nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.0)

    def forward(self, x):
        return self.layer(self.start(x))


@pytest.mark.qemu
@pytest.mark.slow
@EMULATED
def test_float_step_8_bit_4_bit_and_attention_files_give_the_same_numbers_on_aarch64(tmp_path):
    task = features_task({"y": {0: "batch", 1: "time"}})
    for name, model, options in (
        ("float", Layers(torch.nn.GRU), {"stream": True}),
        ("int8", Layers(torch.nn.LSTM), {"precision": "int8"}),
        ("int4", Layers(torch.nn.GRU), {"precision": "int4"}),
        ("attention", Attention(), {}),
    ):
        export(Job(model.eval(), task, tmp_path / f"{name}.onnx", Options(**options)))
    files = sorted(tmp_path.glob("*.onnx"))
    assert [path.stem for path in files] == ["attention", "float", "float.step", "int4", "int8"]
    result = call("verify", *files, "--arch", "aarch64", "--length", 9, "--json")
    assert [entry["agrees"] for entry in json.loads(result.out)] == [True] * 5
    assert result.code == 0
