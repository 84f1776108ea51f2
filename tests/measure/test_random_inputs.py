"""Inputs for a file about which nothing else is known."""

from types import SimpleNamespace

import pytest
import torch

from compressor.errors import UsageError
from compressor.measure.random_inputs import has_length, random_input, random_inputs
from compressor.report import TensorInfo


def info(name, dtype, *shape):
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def test_a_float_input_is_normal_at_the_batch_and_length():
    tensor = random_input(info("features", "float32", "batch", "time", 13), batch=3, length=5)
    assert (tuple(tensor.shape), tensor.dtype) == ((3, 5, 13), torch.float32)
    assert 0.5 < tensor.std().item() < 1.5


def test_the_batch_axis_is_found_by_its_name():
    assert random_input(info("x", "float32", "time", "batch", 7), batch=3, length=5).shape == (5, 3, 7)
    assert random_input(info("x", "float16", "s0", "s1"), batch=3, length=5).shape == (3, 5)


def test_lengths_are_the_length_and_other_integers_zero():
    assert random_input(info("lengths", "int64", "batch"), batch=2, length=5).tolist() == [5, 5]
    assert random_input(info("tokens", "int32", "batch", "time"), batch=1, length=3).tolist() == [[0, 0, 0]]
    assert random_input(info("mask", "bool", "batch"), batch=2, length=3).tolist() == [True, True]


def test_an_input_of_another_type_needs_a_task():
    with pytest.raises(UsageError) as caught:
        random_input(info("words", "tensor(string)", "batch"), batch=1, length=1)
    assert caught.value.render() == "error: no random input for `words` of type tensor(string)\nhint: give --task"


def test_the_first_axis_is_the_batch_if_none_is_named_so():
    assert random_input(info("x", "float32", "s0", "s1", 7), batch=3, length=5).shape == (3, 5, 7)
    assert random_input(info("x", "float32", 7, "N", "s1"), batch=3, length=5).shape == (7, 3, 5)


def test_the_last_states_of_a_file_are_left_out():
    file = SimpleNamespace(inputs=[info("x", "float32", "batch", 7), info("h", "float32", 5), info("c", "float32", 5)])
    found = random_inputs(file, batch=2, length=1, states=2)
    assert [tuple(tensor.shape) for tensor in found] == [(2, 7)]
    assert [tuple(tensor.shape) for tensor in random_inputs(file, batch=2, length=1)] == [(2, 7), (5,), (5,)]


@pytest.mark.parametrize(
    ("shape", "has"),
    [(("batch", 3), False), (("batch", "time", 3), True), ((1, 29, 3), False), (("time", "b", 3), True)],
)
def test_a_file_has_a_length_if_an_axis_beside_the_batch_is_open(shape, has):
    file = SimpleNamespace(inputs=(TensorInfo(name="x", dtype="float32", shape=shape),))
    assert has_length(file) == has
