from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import UnlabelledTask
from compressor.errors import TaskError
from compressor.task.fidelity import fidelity
from compressor.task.guard import GuardedTask


class TimeFirst(UnlabelledTask):
    """The axis of samples is the second one of the outputs and of the state."""

    length, min_length, max_length = 5, 1, 9

    def model(self):
        torch.manual_seed(0)
        return nn.GRU(3, 4)

    def example(self, batch, length):
        return torch.randn(length, batch, 3)


def test_the_original_keeps_all_of_itself_and_another_one_less():
    task = TimeFirst()
    scores = task.evaluate(task.model())
    assert scores.shape == (64,)
    assert bool((scores == 1).all())
    other = task.evaluate(lambda x: tuple(0.9 * part for part in task.model()(x)))
    torch.testing.assert_close(other, torch.full((64,), 0.9, dtype=torch.float64))


def test_each_sample_counts_by_its_own_norm():
    own = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    assert fidelity([own + torch.tensor([[0.0, 1.0], [0.0, 1.0]])], [own], [0]).tolist() == pytest.approx([0.8, 0.0])


def test_outputs_without_samples_are_left_out():
    own, ours = torch.ones(2, 3), torch.zeros(7)
    assert fidelity([own, ours], [own, torch.ones(7)], [0, None]).tolist() == [1.0, 1.0]


def test_inputs_to_learn_from_are_the_same_for_the_same_generator():
    epochs = [[inputs for inputs, _ in TimeFirst().batches(torch.Generator().manual_seed(1))] for _ in range(2)]
    assert len(epochs[0]) == 8
    assert all(torch.equal(*pair) for pair in zip(*epochs, strict=True))
    assert not torch.equal(epochs[0][0], epochs[0][1])


def test_it_says_that_there_are_no_labels():
    task = GuardedTask(TimeFirst(), "task.py")
    assert "No labels were used" in task.remark
    with pytest.raises(TaskError, match="TimeFirst has no `loss`: there are no labels; `retrain` with") as caught:
        task.loss(torch.zeros(1), None)
    assert caught.value.hint == "define `loss`, or leave out the step that needs it"


def test_a_model_without_samples_in_its_outputs_needs_a_metric_of_its_own():
    class Total(TimeFirst):
        def model(self):
            return Summed()

    class Summed(nn.Module):
        def forward(self, x):
            return x.sum()

    with pytest.raises(TaskError, match="no output of the model has an axis of samples"):
        Total().evaluate(Summed())


def test_a_rehearsal_evaluates_on_a_slice_if_the_task_takes_a_limit():
    task = GuardedTask(TimeFirst(), "task.py")
    model = task.model()
    assert len(task.evaluate(model)) == 64
    task.limit = 20
    assert len(task.evaluate(model)) == 32  # two batches of 16
    assert len(task.validate(model)) == 64  # it takes none
