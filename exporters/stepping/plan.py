"""What is known of a model that is to run step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.report import StreamInput, StreamOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from compressor.streaming.survey import Survey
    from compressor.task.contract import Task

    Inputs = tuple[Tensor, ...]


LEAVE_OUT = "or leave `stream` out"


@dataclass(frozen=True)
class Plan:
    """What is known of a model whose steps were found, in PyTorch, to agree with its whole sequences."""

    survey: Survey
    inputs: tuple[StreamInput, ...]
    outputs: tuple[StreamOutput, ...]


def describe_inputs(task: Task, example: Inputs) -> tuple[StreamInput, ...]:
    """What becomes of the task's inputs in a stream.

    Raises:
        ExportError: None of them has an axis of time and one of samples.
    """
    described = []
    for (name, axes), part in zip(task.inputs.items(), example, strict=True):
        batch, time = axis_named(axes, "batch"), axis_named(axes, "time")
        counts = not part.is_floating_point() and part.dim() == 1 and time is None and "len" in name.lower()
        described.append(StreamInput(name=name, batch_axis=batch, time_axis=time, lengths=counts))
    if not any(item.time_axis is not None and item.batch_axis is not None for item in described):
        raise ExportError(
            "no input of the task has an axis called `time` and one called `batch`, so there is nothing to stream",
            hint=f'name them in the task\'s `inputs`, such as {{"features": {{0: "batch", 1: "time"}}}}, {LEAVE_OUT}',
        )
    return tuple(described)


def axis_named(axes: Mapping[int, str], word: str) -> int | None:
    """The axis of this name."""
    return next((axis for axis, name in axes.items() if name == word), None)


def refuse_late_outputs(outputs: tuple[StreamOutput, ...], chunk: int) -> None:
    """Raise `ExportError` if an output has no axis of time and a step takes several positions."""
    late = [output.name for output in outputs if output.time_axis is None]
    if chunk > 1 and late:
        raise ExportError(
            f"output `{late[0]}` has no axis of time, so with chunk: {chunk} it would be known at every {chunk}. "
            "position only",
            hint="use chunk: 1, or let the model give an output for every position",
        )
