"""How a step file is run, and the states that it carries."""

from __future__ import annotations

import math

from compressor.report.fact import Fact


class StateInfo(Fact):
    """A state that a step file takes as an input and gives anew as an output; the batch is its first axis."""

    name: str
    """Of the input."""
    next_name: str
    """Of the output that is the input at the next step."""
    dtype: str
    shape: tuple[int | str, ...]
    """A dynamic axis is given by its name."""
    growing_axis: int | None = None
    """The axis that has no entries at first and one more with each position."""
    initial: float | tuple[float, ...] = 0.0
    """Before the first position: every number, or all numbers of one stream in C order."""

    def bytes(self, positions: int) -> int:
        """What one stream keeps after some positions."""
        sizes = [positions if axis == self.growing_axis else size for axis, size in enumerate(self.shape) if axis]
        width = {"float32": 4, "float16": 2, "float64": 8, "int64": 8, "int32": 4}[self.dtype]
        return width * math.prod(int(size) for size in sizes)


class StreamInput(Fact):
    """An input of the whole-sequence file, and what becomes of it in the step file."""

    name: str
    batch_axis: int | None
    time_axis: int | None
    """The axis that a step takes `chunk` positions of; None if a step takes the whole input."""
    lengths: bool = False
    """It holds the lengths of padded sequences, so the step file does not have it: a stream has no padding."""


class StreamOutput(Fact):
    """An output of the step file that is no state."""

    name: str
    batch_axis: int | None
    time_axis: int | None
    """None if it is an answer to all positions so far."""


class StreamInfo(Fact):
    """How a step file is run: what its metadata says under `compressor.stream`."""

    version: int = 1
    chunk: int
    """Positions in a step."""
    inputs: tuple[StreamInput, ...]
    outputs: tuple[StreamOutput, ...]
    states: tuple[StateInfo, ...]

    def state_bytes(self, positions: int) -> int:
        """What one stream keeps after some positions; the same number for all if nothing grows."""
        return sum(state.bytes(positions) for state in self.states)

    @property
    def grows(self) -> bool:
        """Whether a state grows with every position."""
        return any(state.growing_axis is not None for state in self.states)
