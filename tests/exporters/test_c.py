"""C for microcontrollers: what leaves was compiled, run and compared, as a stream and as a whole sequence."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from compressor.errors import ExportError, ParityError
from compressor.formats import EXPORTERS, Job
from compressor.runtimes import generated_code
from compressor.runtimes.forward import open_forward
from compressor.testing import RandomTask, normal
from exporters.c_code import kernels

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler")
AXES = {"x": {0: "batch", 1: "time"}}, {"y": {0: "batch", 1: "time"}}


class Stack(nn.Module):
    """Two recurrent layers, a norm and a head, whose initial state is learned."""

    def __init__(self, kind: type[nn.Module] = nn.GRU, **options: bool) -> None:
        super().__init__()
        self.rnn = kind(5, 7, num_layers=2, batch_first=True, **options)
        self.norm, self.head = nn.LayerNorm(14 if options else 7), nn.Linear(14 if options else 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.head(self.norm(self.rnn(x)[0])), -1)


SHARED: dict[tuple[object, ...], object] = {}
"""Exports to ONNX, one of each model."""


@pytest.fixture(scope="module")
def gru():
    torch.manual_seed(0)
    return Stack(nn.GRU).eval()


@cache
def task_of(model: nn.Module) -> RandomTask:
    return RandomTask(*AXES, normal(5), model)


def export(model: nn.Module, folder: Path, *, name: str = "model", **options: object):
    chosen = EXPORTERS["c"].options.model_validate({"name": name, **options})
    torch.manual_seed(0)
    job = Job(model.eval(), task_of(model), folder / chosen.file_name(), chosen, shared=SHARED)
    return EXPORTERS["c"].export(job)


def test_a_step_carries_its_states_in_a_struct(gru, tmp_path):
    artifact = export(gru, tmp_path)
    assert artifact.path == "model.step.c"
    assert artifact.parity.passed
    assert max(point.max_absolute for point in artifact.parity.points) < 1e-5
    assert [part.path for part in artifact.parts if part.shipped] == ["model.step.h"]
    header = (tmp_path / "model.step.h").read_text()
    assert "void model_step(model_state *s, const float *x, float *y);" in header
    assert "malloc" not in (tmp_path / "model.step.c").read_text()

    forward = open_forward(tmp_path / "model.step.c", task_of(gru))
    x = torch.randn(3, 8, 5)
    assert torch.allclose(forward(x), gru(x), atol=1e-5)
    forward.close()


@pytest.mark.slow
def test_a_whole_sequence_may_look_ahead(tmp_path):
    model = Stack(nn.LSTM, bidirectional=True)
    artifact = export(model, tmp_path, form="sequence", length=6)
    assert artifact.path == "model.c"
    assert {point.length for point in artifact.parity.points} == {6}
    assert artifact.operators["LSTM"] == 2


@pytest.mark.slow
def test_weights_in_8_bits_take_less_and_agree_closely(gru, tmp_path):
    exact, rounded = export(gru, tmp_path), export(gru, tmp_path, precision="int8")
    assert rounded.bytes < exact.bytes
    assert rounded.parity.passed
    assert "k_rows_int8" in (tmp_path / "model.step.c").read_text()
    assert any("int8" in note for note in rounded.notes)


def test_code_that_computes_something_else_is_refused_and_the_older_file_stays(gru, tmp_path, monkeypatch):
    export(gru, tmp_path)
    before = (tmp_path / "model.step.c").read_bytes()
    wrong = kernels.KERNELS["sigmoid"].replace("1.0f + expf", "1.01f + expf")
    monkeypatch.setattr(kernels, "KERNELS", {**kernels.KERNELS, "sigmoid": wrong})
    monkeypatch.setattr("exporters.c_code.files.KERNELS", kernels.KERNELS)
    with pytest.raises(ParityError, match="disagrees with PyTorch in C"):
        export(gru, tmp_path)
    assert (tmp_path / "model.step.c").read_bytes() == before


def test_code_that_reads_past_an_array_is_caught_by_the_sanitizers(gru, tmp_path, monkeypatch):
    wrong = kernels.KERNELS["dot"].replace("for (; i < n; ++i)", "for (; i <= n + 64; ++i)")
    monkeypatch.setattr("exporters.c_code.files.KERNELS", {**kernels.KERNELS, "dot": wrong})
    with pytest.raises(ExportError, match="sanitizers"):
        export(gru, tmp_path)


@pytest.mark.slow
def test_two_models_are_compiled_into_one_program(gru, tmp_path):
    for name, model in (("first", gru), ("second", Stack(nn.LSTM))):
        export(model, tmp_path, name=name)
    (tmp_path / "main.c").write_text(
        '#include "first.step.h"\n#include "second.step.h"\n'
        "int main(void) { static first_state a; static second_state b; float x[5] = {0}, y[3];\n"
        "first_init(&a); second_init(&b); first_step(&a, x, y); second_step(&b, x, y); return 0; }\n"
    )
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    sources = ["main.c", "first.step.c", "second.step.c"]
    subprocess.run([compiler, "-std=c99", "-Werror", *sources, "-lm", "-o", "both"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "both"], check=True)


def test_code_of_another_process_is_not_compiled(gru, tmp_path):
    export(gru, tmp_path)
    code = tmp_path / "model.step.c"
    code.write_text(code.read_text() + "/* changed */\n")
    with pytest.raises(ExportError, match="is source code"):
        open_forward(code, task_of(Stack()))


def test_a_changed_header_is_not_compiled_either(tmp_path):
    (tmp_path / "a.h").write_text("/* mine */\n")
    (tmp_path / "a.c").write_text('#include "a.h"\n')
    generated_code.approve(tmp_path / "a.c")
    generated_code.ensure(tmp_path / "a.c")
    (tmp_path / "a.h").write_text("/* yours */\n")
    with pytest.raises(ExportError, match="is source code"):
        generated_code.ensure(tmp_path / "a.c")


def test_a_missing_compiler_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ExportError, match="no C compiler `no-such-compiler`") as refused:
        export(Stack(), tmp_path)
    assert "gcc" in (refused.value.hint or "")


def test_a_sequence_needs_a_length():
    with pytest.raises(ValueError, match="needs `length`"):
        EXPORTERS["c"].options.model_validate({"form": "sequence"})
