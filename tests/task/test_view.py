"""Views of a task nest, and what a view does not change is the task's own."""

import pytest
import torch
from torch import nn

from compressor.task.view import TaskView, has_validation_data
from compressor.testing import RandomTask, normal

TIMED = {0: "batch", 1: "time"}


@pytest.fixture
def task():
    return RandomTask({"x": TIMED}, {"y": TIMED}, normal(3), nn.Linear(3, 2))


class Doubled(TaskView):
    def adapt(self, inputs):
        return tuple(2.0 * part for part in inputs)


def test_a_view_that_changes_nothing_gives_what_the_task_gives(task):
    view = TaskView(TaskView(task))
    (x,) = view.example(5, 7)
    assert x.shape == (5, 7, 3)
    assert (view.metric, view.length, view.inputs) == (task.metric, task.length, task.inputs)
    assert torch.equal(view.model().weight, task.model().weight)
    assert torch.equal(view.evaluate(task.model()), torch.ones(64))
    (_, target) = next(iter(view.batches(torch.Generator().manual_seed(0))))
    assert view.loss(target[0], target) == 0.0


def test_adapted_inputs_reach_example_batches_and_forward_and_views_nest(task):
    view = Doubled(Doubled(task))
    assert 3.0 < view.example(50, 7)[0].std() < 5.0
    plain, adapted = (next(iter(each.batches(torch.Generator().manual_seed(0))))[0][0] for each in (task, view))
    assert torch.equal(adapted, 4.0 * plain)
    taken = []
    view.validate(lambda x: taken.append(x) or torch.zeros(*x.shape[:2], 2))
    assert 3.0 < taken[0].std() < 5.0


def test_batches_keep_their_length_if_they_have_one(task):
    task.batches = lambda generator: [(task.example(2, 3), None)] * 7
    assert len(TaskView(task).batches(torch.Generator())) == 7


def test_validation_data_is_that_of_the_users_task(task):
    class Validated(RandomTask):
        def validate(self, forward):
            return 0.0

    assert not has_validation_data(TaskView(task))
    assert has_validation_data(TaskView(Doubled(Validated({"x": TIMED}, {"y": TIMED}, normal(3)))))
