"""LiteRT and ExecuTorch: every test runs the real converter and the real runtime, each in its own environment."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import ExportError, ParityError
from compressor.formats import EXPORTERS, Job
from compressor.runtimes import environments
from compressor.runtimes.forward import open_forward
from compressor.runtimes.runtime_file import open_file
from compressor.testing import RandomTask
from tests.exporters.conftest import features_task

PER_STEP = {"scores": {0: "batch", 1: "time"}}


def formats(*names):
    """One parameter a format, skipped where its environment is missing."""
    return [
        pytest.param(
            name,
            marks=[
                getattr(pytest.mark, name),
                pytest.mark.skipif(environments.locate(name) is None, reason=f"`compressor runtimes install {name}`"),
            ],
        )
        for name in names
    ]


BOTH = formats("litert", "executorch")


class Tagger(nn.Module):
    """Two recurrent layers and a head for every position."""

    def __init__(self, kind=nn.LSTM, width=24, layers=2):
        super().__init__()
        self.rnn, self.out = kind(5, width, layers, batch_first=True), nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class Attends(nn.Module):
    """Causal attention to a whole sequence."""

    def __init__(self):
        super().__init__()
        self.inward, self.attention = nn.Linear(5, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.inward(x)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


def export(form, model, task, folder, /, **options):
    """The artifact, and its file opened as a task's `evaluate` would call it."""
    exporter = EXPORTERS[form]
    artifact = exporter.export(Job(model.eval(), task, folder / f"model.{form}", exporter.options(**options)))
    return artifact, open_forward(folder / artifact.path, task)


@pytest.mark.slow
@pytest.mark.parametrize("form", BOTH)
def test_chained_steps_in_8_bits_stay_near_the_float_model_in_a_file_a_third_as_large(form, tmp_path):
    torch.manual_seed(0)
    model, task = Tagger(width=64), features_task(PER_STEP)
    plain, forward = export(form, model, task, tmp_path / "float", form="step")
    forward.close()
    small, forward = export(form, model, task, tmp_path / "int8", form="step", precision="int8")
    x = torch.randn(3, 7, 5)
    with torch.no_grad():
        torch.testing.assert_close(forward(x), model(x), atol=0.02, rtol=0)
    assert not torch.equal(forward(x), model(x))
    assert plain.bytes / small.bytes > 2.5
    assert max(point.max_absolute for point in plain.parity.points) < 1e-5
    forward.close()


@pytest.mark.slow
@pytest.mark.parametrize("form", BOTH)
def test_words_go_through_a_chunk_of_cells_in_a_loop(form, tmp_path):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.cell = nn.Embedding(11, 6), nn.GRUCell(6, 7)

        def forward(self, words):
            state, found = torch.zeros(words.shape[0], 7), []
            for position in self.embedding(words).unbind(1):
                state = self.cell(position, state)
                found.append(state)
            return torch.stack(found, 1)

    task = RandomTask(
        {"words": {0: "batch", 1: "time"}}, PER_STEP, lambda b, t: (torch.randint(11, (b, t)),), min_length=2
    )
    model, words = Words(), torch.randint(11, (2, 5))
    artifact, forward = export(form, model, task, tmp_path, form="step", chunk=2)
    assert [item.shape for item in artifact.inputs] == [(1, 2), (1, 7)]
    with torch.no_grad():
        torch.testing.assert_close(forward(words), model(words), atol=1e-5, rtol=1e-4)
    forward.close()


@pytest.mark.parametrize("form", formats("litert"))
def test_a_whole_sequence_has_one_length_and_says_so_to_others(form, tmp_path):
    torch.manual_seed(0)
    model, task = Attends(), features_task(PER_STEP)
    artifact, forward = export(form, model, task, tmp_path, length=6)
    x = torch.randn(2, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(forward(x), model(x), atol=1e-5, rtol=1e-4)
    assert artifact.inputs[0].shape == (1, 6, 5)
    with pytest.raises(ExportError, match="takes sequences of 6 positions, and was given 9"):
        forward(torch.randn(2, 9, 5))
    forward.close()


@pytest.mark.slow
@pytest.mark.parametrize("form", formats("executorch"))
def test_attention_takes_any_length_of_the_task(form, tmp_path):
    torch.manual_seed(0)
    model, task = Attends(), features_task(PER_STEP)
    artifact, forward = export(form, model, task, tmp_path)
    assert artifact.inputs[0].shape == (1, "time", 5)
    for length in (1, 17, 29):
        x = torch.randn(2, length, 5)
        with torch.no_grad():
            torch.testing.assert_close(forward(x), model(x), atol=1e-5, rtol=1e-4)
    forward.close()


@pytest.mark.parametrize("form", formats("litert"))
def test_a_quantized_file_further_off_than_allowed_is_not_written(form, tmp_path):
    with pytest.raises(ParityError, match="litert file disagrees") as error:
        export(form, Tagger(), features_task(PER_STEP), tmp_path, form="step", precision="int4", quantized_error=1e-6)
    assert "the float32 file agrees" in error.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", formats("litert"))
def test_a_converter_out_of_time_is_ended_and_the_next_one_starts_anew(form, tmp_path):
    with pytest.raises(ExportError, match=r"took longer than 0\.01 s"):
        export(form, Tagger(), features_task(PER_STEP), tmp_path, form="step", seconds=0.01)
    assert not list(tmp_path.iterdir())
    _, forward = export(form, Tagger(nn.RNN, width=4, layers=1), features_task(PER_STEP), tmp_path, form="step")
    forward.close()


@pytest.mark.parametrize("form", BOTH)
def test_a_damaged_file_is_an_error_that_names_it(form, tmp_path):
    task = features_task(PER_STEP)
    artifact, forward = export(form, Tagger(nn.RNN, width=4, layers=1), task, tmp_path, form="step")
    forward.close()
    path = tmp_path / artifact.path
    path.write_bytes(path.read_bytes()[: artifact.bytes // 2])
    with pytest.raises(ExportError, match=artifact.path):
        open_file(path).close()


@pytest.mark.parametrize("form", BOTH)
def test_a_long_recurrent_sequence_is_refused_with_the_step_as_remedy(form, tmp_path):
    with pytest.raises(ExportError, match="written out as 100 cells, and `unroll` allows") as error:
        export(form, Tagger(), features_task(PER_STEP, length=50, max_length=60), tmp_path)
    assert "`form: step`" in error.value.hint


@pytest.mark.parametrize("form", BOTH)
def test_a_state_that_grows_is_refused_with_what_runs_instead(form, tmp_path):
    with pytest.raises(ExportError, match=r"state `attention.k` grows") as error:
        export(form, Attends(), features_task(PER_STEP), tmp_path, form="step")
    assert "method: aaren" in error.value.hint


@pytest.mark.parametrize("form", BOTH)
def test_8_bits_are_refused_where_nothing_can_be_quantized(form, tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.randn(5))

        def forward(self, x):
            return torch.tanh(x * self.scale)

    with pytest.raises(ExportError, match="no linear layer or recurrent cell"):
        export(form, Scaled(), features_task(PER_STEP), tmp_path, length=6, precision="int8")


def test_a_missing_runtime_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ExportError) as error:
        export("litert", Tagger(), features_task(PER_STEP), tmp_path, form="step")
    assert "compressor runtimes install litert" in error.value.hint
