"""What is found out about the calls of a task's model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import Task
from compressor.errors import TaskError
from compressor.task.guard import GuardedTask


class Echo(nn.Module):
    def forward(self, x, hidden):
        return {"x": x * 2, "hidden": (hidden + 1, x.sum(1))}


class Echoes(Task):
    length, min_length, max_length = 6, 1, 12

    def model(self):
        return Echo()

    def example(self, batch, length):
        return torch.randn(batch, length, 3), torch.randn(batch, 2)

    def batches(self, generator):
        return []

    def loss(self, outputs, target):
        return outputs["x"].sum()

    def evaluate(self, forward):
        return 0.0


def guarded(**attributes):
    task = GuardedTask(type("Changed", (Echoes,), attributes)(), __file__)
    task.model()
    return task


def test_an_output_that_has_the_name_of_an_input_gets_another():
    task = guarded()
    assert list(task.inputs) == ["x", "hidden"]
    assert list(task.outputs) == ["output.x", "hidden.0", "hidden.1"]


def test_names_of_declared_inputs_count_too():
    task = guarded(inputs={"hidden.0": {0: "batch", 1: "time"}, "y": {0: "batch"}})
    assert list(task.outputs) == ["x", "output.hidden.0", "hidden.1"]


def test_a_declared_output_must_not_have_the_name_of_an_input():
    with pytest.raises(TaskError, match="`outputs` calls a tensor `hidden`, which is the name of an input"):
        guarded(outputs={"a": {0: "batch"}, "hidden": {0: "batch"}, "b": {0: "batch"}})


def test_an_example_of_another_shape_each_time_is_refused():
    sizes = iter(range(2, 99))
    with pytest.raises(
        TaskError, match=r"`example\(2, 6\)` gives `x` another shape in a second call: \(2, 2, 3\), then"
    ):
        guarded(example=lambda self, batch, length: (torch.randn(batch, next(sizes), 3), torch.randn(batch, 2)))


class Rows(nn.Module):
    def forward(self, x):
        return x.flatten(1).sum(1)


def of_one_length(**attributes):
    own = {"model": lambda _: Rows(), "example": lambda _, batch, length: torch.randn(batch, 7, 3)}
    return guarded(**own, **attributes)


def test_an_example_that_ignores_its_length_is_refused_if_the_task_says_lengths():
    with pytest.raises(TaskError, match=r"lengths are 1 to 12, but `example\(2, 6\)` and `example\(2, 3\)` give"):
        of_one_length()


def test_a_model_of_one_length_needs_no_word_about_lengths():
    assert of_one_length(min_length=6, max_length=6).inputs == {"x": {0: "batch"}}
    default = {"min_length": Task.min_length, "length": Task.length, "max_length": Task.max_length}
    assert of_one_length(**default).inputs == {"x": {0: "batch"}}
    assert of_one_length(length=6, max_length=6).inputs == {"x": {0: "batch"}}
