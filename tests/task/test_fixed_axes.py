"""The task of a file whose axes have fixed sizes."""

import pytest

from compressor.errors import UsageError
from compressor.task.fixed_axes import dynamic, fixed
from compressor.testing import RandomTask, normal


@pytest.fixture
def task():
    return RandomTask({"x": {0: "batch", 1: "time"}}, {"y": {0: "batch"}}, normal(3), min_length=2, max_length=29)


def test_examples_have_the_fixed_sizes_and_those_axes_are_no_longer_open(task):
    view = fixed(task, {"batch": 1, "time": 13})
    assert view.example(5, 7)[0].shape == (1, 13, 3)
    assert (view.inputs, view.outputs) == ({"x": {}}, {"y": {}})
    assert (view.length, view.min_length, view.max_length) == (13, 13, 13)


def test_an_axis_that_is_not_fixed_stays_as_it_was(task):
    view = fixed(task, {"batch": 2})
    assert view.example(5, 7)[0].shape == (2, 7, 3)
    assert view.inputs == {"x": {1: "time"}}
    assert (view.length, view.min_length, view.max_length) == (11, 2, 29)


def test_without_sizes_the_task_stays_itself_and_the_dynamic_one_is_found(task):
    assert fixed(task, {}) is task
    assert dynamic(task) is task
    assert dynamic(fixed(task, {"time": 5})) is task


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 3}, "`shapes` fixes `width`, but the task's dynamic axes are batch, time"),
        ({"time": 30}, "`shapes` fixes `time` to 30, but the task's lengths are 2 to 29"),
        ({"time": 1}, "`shapes` fixes `time` to 1, but the task's lengths are 2 to 29"),
    ],
)
def test_sizes_that_do_not_fit_the_task_are_refused(task, sizes, message):
    with pytest.raises(UsageError, match=message):
        fixed(task, sizes)
