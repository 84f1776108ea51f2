"""What a task's author would want to know, and what goes wrong with one sample."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import TaskError
from compressor.pipeline.dry_run import try_out
from compressor.task.guard import GuardedTask
from tests.pipeline.test_dry_run import Good, Net


def notes(**changes):
    task = GuardedTask(type("Changed", (Good,), changes)(), __file__)
    try_out(task, task.model(), torch.device("cpu"))
    return task.notes


class Centred(Net):
    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


class Squeezed(Net):
    def forward(self, x):
        return super().forward(x)[:, :, :1].squeeze()


class Paired(Net):
    def forward(self, x):
        first, second = super().forward(x)[:2]
        return torch.stack([first, second])


class Deaf(Net):
    def forward(self, x, speed):
        return super().forward(x) + 0 * speed.sum()


def test_a_task_with_nothing_to_note_has_no_notes():
    assert notes() == ()


@pytest.mark.parametrize("metric", ["loss", "WER", "test error", "cross-entropy", "val_mse"])
def test_a_metric_that_is_usually_better_if_lower(metric):
    (note,) = notes(metric=metric)
    assert note.startswith(f"The metric `{metric}` is taken to be better if it is higher")
    assert notes(metric=metric, higher_is_better=False) == ()


@pytest.mark.parametrize("metric", ["accuracy", "persons", "lossless", "terror-free", "f1"])
def test_words_that_only_hold_such_a_name_are_none(metric):
    assert notes(metric=metric) == ()


def test_a_sample_that_depends_on_its_batch():
    (note,) = notes(network=Centred)
    assert "depends on the other samples of its batch" in note


def test_an_input_without_effect():
    (note,) = notes(
        network=Deaf,
        example=lambda self, batch, length: (torch.randn(batch, length, 3), torch.randn(batch, 4)),
        batches=lambda self, generator: [((torch.randn(4, 5, 3), torch.randn(4, 4)), torch.zeros(4))],
        evaluate=lambda self, forward: float(forward(torch.ones(2, 4, 3), torch.ones(2, 4)).sum()),
    )
    assert note == "The values of the input `speed` have no effect on the outputs, between two examples."


def test_an_evaluation_on_what_is_learnt():
    data = torch.randn(4, 5, 3)
    (note,) = notes(
        batches=lambda self, generator: [(data, torch.zeros(4))],
        evaluate=lambda self, forward: float(forward(data).sum()),
    )
    assert note.startswith("`evaluate` measures on samples that `batches` gives for training")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Squeezed, "`output` has 2 axes for two samples and 1 for one"),
        (Paired, "does not run on one sample: ValueError"),
    ],
)
def test_a_model_that_needs_two_samples_is_refused_before_any_export(network, message):
    with pytest.raises(TaskError, match=message):
        notes(
            network=network,
            loss=lambda self, outputs, target: outputs.square().mean(),
            evaluate=lambda self, forward: float(forward(torch.ones(2, 4, 3)).sum()),
        )
