"""Which axes of a model's inputs and outputs are open."""

from __future__ import annotations

from compressor.report.fact import Fact


class TensorAxes(Fact):
    """The open axes of one tensor that goes in or comes out."""

    name: str
    enters: bool
    """True for an input."""
    axes: dict[int, str]
    """Axis -> the size that it follows, or a name of its own if it follows several."""
    declared: bool = False
    """Whether the task declares it; it is found otherwise."""
    module: str = ""
    """The module that it belongs to, by its name in the task; empty: the whole model."""


class OpenAxes(Fact):
    """What was seen of a model's calls at two sizes of every open axis."""

    sizes: dict[str, tuple[int, int]]
    """`batch`, `time` and further sizes of the task's example -> the two at which the model was called."""
    tensors: tuple[TensorAxes, ...]
