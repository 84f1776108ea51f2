"""C for microcontrollers: what leaves was compiled, run and compared, as a stream and as a whole sequence."""

from __future__ import annotations

import subprocess
import zipfile
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
from tests.boards import needs_board
from tests.compilers import CC, needs_compiler

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_compiler
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
    wrong = kernels.KERNELS["dot"].replace("i < n; ++i)", "i <= n + 64; ++i)")
    monkeypatch.setattr("exporters.c_code.files.KERNELS", {**kernels.KERNELS, "dot": wrong})
    with pytest.raises(ExportError, match="sanitizers"):
        export(gru, tmp_path)


@pytest.mark.slow
def test_two_models_are_compiled_into_one_program(gru, tmp_path):
    models = {"first": gru, "second": Stack(nn.LSTM).eval()}
    for name, model in models.items():
        export(model, tmp_path, name=name)
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "first.step.h"\n#include "second.step.h"\n'
        "int main(void) { static first_state a; static second_state b; float x[5] = {1, -2, 3, 0, 1}, y[3], z[3];\n"
        "first_init(&a); second_init(&b);\n"
        "for (int t = 0; t < 3; ++t) { first_step(&a, x, y); second_step(&b, x, z); }\n"
        'for (int i = 0; i < 3; ++i) { printf("%.9g %.9g\\n", (double)y[i], (double)z[i]); } return 0; }\n'
    )
    sources = ["main.c", "first.step.c", "second.step.c"]
    subprocess.run([CC, "-std=c99", "-Werror", *sources, "-lm", "-o", "both"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "both"], check=True, capture_output=True, text=True).stdout
    outputs = torch.tensor([float(word) for word in said.split()]).view(3, 2)
    x = torch.tensor([1.0, -2, 3, 0, 1]).expand(1, 3, 5)
    for place, model in enumerate(models.values()):
        assert torch.allclose(outputs[:, place], model(x)[0, -1], atol=1e-5)


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


@needs_board
def test_the_target_says_what_a_program_takes_there(gru, tmp_path):
    artifact = export(gru, tmp_path, target="cortex-m4")
    emulated = artifact.emulated
    assert emulated.agrees
    assert 4000 < emulated.flash_bytes < 8000
    struct = 4 * (2 * 7 + 70)
    assert struct < emulated.ram_bytes - emulated.stack_bytes < struct + 200  # the C library has some, too
    assert 1000 < emulated.instructions < 20_000
    assert [part.path for part in artifact.parts if not part.shipped] == ["model.step.c.json", "model.step.proof.h"]


@needs_board
def test_code_that_gives_something_else_on_the_target_is_refused(gru, tmp_path, monkeypatch):
    wrong = kernels.KERNELS["sigmoid"].replace(
        "    return 1.0f", "#ifdef __arm__\n    x += 0.01f;\n#endif\n    return 1.0f"
    )
    monkeypatch.setattr("exporters.c_code.files.KERNELS", {**kernels.KERNELS, "sigmoid": wrong})
    with pytest.raises(ParityError, match="gives on an emulated cortex-m7 what is up to"):
        export(gru, tmp_path, target="cortex-m7")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"form": "sequence", "length": 5}])
def test_the_proof_passes_where_the_code_is_right_and_counts_what_is_wrong(gru, tmp_path, options):
    export(gru, tmp_path, **options)
    stem = "model" if options else "model.step"
    (tmp_path / "main.c").write_text(f'#include "{stem}.proof.h"\nint main(void) {{ return model_proof(); }}\n')
    code, found = tmp_path / f"{stem}.c", []
    for text in (code.read_text(), code.read_text().replace("1.0f + expf", "1.01f + expf")):
        code.write_text(text)
        compiled = [CC, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "main.c", code.name, "-lm", "-o", "try"]
        subprocess.run(compiled, cwd=tmp_path, check=True)
        found.append(subprocess.run([tmp_path / "try"], check=False).returncode)
    outputs = 2 * 5 * 3 if options else 8 * 3
    assert found[0] == 0
    assert outputs // 2 < found[1] <= outputs


def test_a_missing_emulator_is_named_before_any_work(gru, tmp_path, monkeypatch):
    monkeypatch.setattr("compressor.runtimes.microcontroller.boards.EMULATOR", "no-such-emulator")
    with pytest.raises(ExportError, match=r"missing: .*`no-such-emulator`"):
        export(gru, tmp_path, target="cortex-m4")


def test_a_sequence_needs_a_length():
    with pytest.raises(ValueError, match="needs `length`"):
        EXPORTERS["c"].options.model_validate({"form": "sequence"})


def test_archives_for_tool_chains_lie_beside_the_code(gru, tmp_path):
    artifact = export(gru, tmp_path, layouts=["arduino", "zephyr"])
    names = {part.path for part in artifact.parts if not part.shipped}
    assert {"model.step.arduino.zip", "model.step.zephyr.zip"} <= names
    with zipfile.ZipFile(tmp_path / "model.step.zephyr.zip") as packed:
        assert packed.read("model/model.step.c") == (tmp_path / "model.step.c").read_bytes()


class One(nn.Module):
    """A recurrent layer of some units and a head."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, units, batch_first=True), nn.Linear(units, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


@needs_board
def test_what_a_board_takes_follows_from_the_code_that_is_exported(tmp_path):
    found, weights = {}, {}
    for units in (5, 37):
        (tmp_path / str(units)).mkdir()
        model = One(units)
        weights[units] = 4 * sum(parameter.numel() for parameter in model.parameters())
        found[units] = export(model, tmp_path / str(units), target="cortex-m4").emulated
    small, large = found.values()
    more = large.flash_bytes - small.flash_bytes
    assert abs(more - (weights[37] - weights[5])) < 0.1 * more  # biases are added up; the code differs a little
    assert 4 * 32 < large.ram_bytes - small.ram_bytes < 4 * 32 * 10
    assert 5 * small.instructions < large.instructions < 50 * small.instructions
