"""A model whose steps would not give what its whole sequences give is refused before any file is written."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from compressor.testing import RandomTask
from exporters.stepping.find import find_plan
from tests.exporters.conftest import features_task
from tests.exporters.onnx_files.test_step import INPUT, LAST, TIMED, Decoder, First


class Convolution(nn.Module):
    """Looks one position ahead, or is given the first position where there is none before."""

    def __init__(self, *, replicated=False):
        super().__init__()
        self.conv = nn.Conv1d(INPUT, INPUT, 3, padding=0 if replicated else 1)
        self.rnn, self.replicated = nn.GRU(INPUT, 3, batch_first=True), replicated

    def forward(self, features):
        y = features.transpose(1, 2)
        y = nn.functional.pad(y, (2, 0), mode="replicate") if self.replicated else y
        return self.rnn(self.conv(y).transpose(1, 2))[0]


class Mean(nn.Module):
    """Pools over time."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(INPUT, 3, batch_first=True)

    def forward(self, features):
        return self.rnn(features)[0].mean(1)


class Untouched(nn.Module):
    """Looks at no other position."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(INPUT, 3)

    def forward(self, features):
        return self.linear(features)


@pytest.mark.parametrize(
    ("model", "outputs", "options", "message"),
    [
        (Convolution, TIMED, {}, "`conv` looks 1 positions ahead: it spans 3"),
        (lambda: Convolution(replicated=True), TIMED, {}, "step by step, `conv` (Conv1d) gives something else"),
        (Mean, LAST, {}, "step by step, output `y` is another one at position 11"),
        (lambda: Decoder("counted"), TIMED, {}, "step by step, `table` (Embedding) is given something else"),
        (Untouched, TIMED, {}, "no layer of the model carries a state"),
        (lambda: nn.Sequential(nn.GRU(INPUT, 3, bidirectional=True), First()), TIMED, {}, "`0` is bidirectional"),
        (Mean, LAST, {"chunk": 4}, "output `y` has no axis of time, so with chunk: 4"),
    ],
)
def test_what_mixes_positions_is_refused_with_the_place(model, outputs, options, message):
    torch.manual_seed(0)
    with pytest.raises(ExportError) as caught:
        find_plan(model().eval(), features_task({"y": outputs}), **options)
    assert caught.value.message.startswith(message)
    assert "leave `stream` out" in caught.value.hint or "use chunk: 1" in caught.value.hint


def test_positions_that_are_an_input_stream():
    task = RandomTask(
        {"features": TIMED, "positions": {0: "time"}},
        {"y": TIMED},
        lambda batch, length: (torch.randn(batch, length, INPUT), torch.arange(length)),
    )
    torch.manual_seed(0)
    planned = find_plan(Decoder("given").eval(), task)
    assert [(item.name, item.batch_axis, item.time_axis) for item in planned.inputs] == [
        ("features", 0, 1), ("positions", None, 0),
    ]  # fmt: skip


def test_a_task_without_an_axis_of_time_is_refused():
    task = RandomTask({"x": LAST}, {"y": LAST}, lambda batch, length: (torch.randn(batch, INPUT),))
    with pytest.raises(ExportError, match="no input of the task has an axis called `time`"):
        find_plan(Untouched(), task)
