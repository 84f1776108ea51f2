"""A file behind the call of the model: any batch, the file's precision, and no other length than it takes."""

import pytest
import torch
from onnx import TensorProto, helper

from compressor.errors import ExportError
from compressor.runtimes.forward import WhenCalled, open_forward
from compressor.testing import RandomTask, normal

TASK = RandomTask({"x": {0: "batch", 1: "time"}}, {"y": {0: "batch"}}, normal(2))


@pytest.fixture
def open_sum(write):
    """A file that sums x (batch, time, 2) over time, with the shape given."""

    def opened(*shape, type_=TensorProto.FLOAT):
        node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
        axes = helper.make_node("Constant", [], ["axes"], value_ints=[1])
        types = {"x": type_, "y": type_}
        return open_forward(write([axes, node], {"x": shape}, {"y": [shape[0], 2]}, types=types), TASK)

    return opened


@pytest.mark.parametrize("samples", [1, 3, 4, 7])
def test_a_larger_batch_is_run_in_pieces_and_the_last_is_filled_up(open_sum, samples):
    x = torch.randn(samples, 5, 2)
    forward = open_sum(3, "time", 2)
    torch.testing.assert_close(forward(x), x.sum(1))
    assert (forward.batch, forward.alone, forward.length) == (3, False, None)


def test_a_file_of_any_batch_gets_it_at_once(open_sum):
    forward = open_sum("batch", 5, 2)
    assert (forward.batch, forward.length) == (None, 5)
    x = torch.randn(7, 5, 2)
    torch.testing.assert_close(forward(x), x.sum(1))


def test_a_length_that_the_file_does_not_take_is_refused(open_sum):
    with pytest.raises(ExportError, match="takes sequences of 5 positions, and was given 6"):
        open_sum("batch", 5, 2)(torch.randn(1, 6, 2))


def test_a_file_of_float16_is_given_it_and_gives_float32(open_sum):
    forward = open_sum("batch", "time", 2, type_=TensorProto.FLOAT16)
    x = torch.randn(3, 5, 2)
    assert forward(x).dtype == torch.float32
    torch.testing.assert_close(forward(x), x.sum(1), atol=1e-2, rtol=1e-2)
    assert [part.dtype for part in forward.one_call([x])] == [torch.float16]


def test_a_file_that_is_opened_when_it_is_called_is_opened_again_after_it_was_closed():
    opened = []

    def open_file():
        opened.append(len(opened))
        return lambda x: x + 1

    file = WhenCalled(open_file)
    assert not opened
    assert [file(1), file(2)] == [2, 3]
    assert opened == [0]
    file.close()
    assert file(3) == 4
    assert opened == [0, 1]
