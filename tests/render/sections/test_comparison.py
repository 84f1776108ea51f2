"""How the files were measured, as the reader is told."""

from compressor.render import markdown
from compressor.report.axes import OpenAxes, TensorAxes
from tests.report.sample import sample


def with_axes(axes):
    tensor = TensorAxes(name="x", enters=True, axes=axes)
    return sample().model_copy(update={"axes": OpenAxes(sizes={"batch": (2, 3)}, tensors=(tensor,))})


def test_a_model_without_sequences_has_no_length():
    assert "batch 1, length 29, 1 thread" in markdown.page(with_axes({0: "batch", 1: "time"}))
    assert "batch 1, 1 thread" in markdown.page(with_axes({0: "batch"}))
