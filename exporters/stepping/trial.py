"""Steps of one position, chained in PyTorch before any file is written: where do they first differ?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.errors import ExportError
from compressor.nn.attention.plain import plain_attention
from compressor.streaming.difference import Difference, first_difference
from compressor.streaming.step import StepModel, explained
from exporters.stepping.module import Step
from exporters.stepping.plan import LEAVE_OUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.report import StreamOutput
    from exporters.stepping.plan import Plan
    from exporters.stepping.sequences import Sequences

    Inputs = tuple[Tensor, ...]


_TRIED = 12
"""Positions in the first comparison, in PyTorch."""


def try_steps(model: nn.Module, planned: Plan, task: Sequences) -> None:
    """Chain steps of one position in PyTorch; raises `ExportError` with the place where they first differ."""
    length = max(task.min_length, min(task.max_length, _TRIED))
    inputs = task.example(2, length)
    step = Step(StepModel(model, planned.survey), planned.inputs, [part.dtype for part in inputs], 1)
    with torch.no_grad(), plain_attention():
        whole = model(*inputs)
        run = _Chain(step, planned, inputs)
        try:
            results = [run(position) for position in range(length)]
        except Exception as error:
            raise explained(error) from error
        expected = (whole,) if isinstance(whole, Tensor) else tuple(whole)
        for index, (output, wanted) in enumerate(zip(planned.outputs, expected, strict=True)):
            position = _first_apart(output, wanted, [result[index] for result in results])
            if position is not None:
                fresh = _Chain(step, planned, inputs)
                different = first_difference(model, fresh, lambda: model(*inputs), length, tolerance=1e-4)
                raise _differs(model, output, position, different)


class _Chain:
    """Chained steps of one position over whole sequences."""

    def __init__(self, step: Step, planned: Plan, inputs: Inputs) -> None:
        batch = next(
            part.shape[item.batch_axis]
            for item, part in zip(planned.inputs, inputs, strict=True)
            if item.batch_axis is not None
        )
        self._step, self._inputs, self._given = step, planned.inputs, inputs
        self._count = len(planned.survey.states)
        self._states = step.step.initial_states(batch)

    def __call__(self, position: int) -> Inputs:
        parts = [
            part if item.time_axis is None else part.narrow(item.time_axis, position, 1)
            for item, part in zip(self._inputs, self._given, strict=True)
            if not item.lengths
        ]
        results: Inputs = self._step(*parts, *self._states)
        self._states = results[len(results) - self._count :]
        return results[: len(results) - self._count]


def _first_apart(output: StreamOutput, whole: Tensor, steps: Sequence[Tensor]) -> int | None:
    """The first position at which an output differs; the last one of an output without an axis of time."""
    axis = output.time_axis
    if axis is None:
        return None if _close(steps[-1], whole) else len(steps) - 1
    for position, step in enumerate(steps):
        fits = whole.shape[axis] == len(steps) and step.shape[axis] == 1
        if not fits or not _close(step, whole.narrow(axis, position, 1)):
            return position
    return None


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    return torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3, equal_nan=True)


def _differs(model: nn.Module, output: StreamOutput, position: int, different: Difference | None) -> ExportError:
    """The refusal of a model whose steps do not agree with its whole sequences."""
    general = (
        "what depends on the number of the position can be given as an input with a `time` axis; what pools over the "
        f"sequence or looks ahead has no step: read the last position instead, {LEAVE_OUT}"
    )
    if different is None:
        return ExportError(
            f"step by step, output `{output.name}` is another one at position {position} than on the whole sequence, "
            "though every layer agrees: the code of `forward` mixes positions, for instance by a mean over time",
            hint=general,
        )
    kind = type(model.get_submodule(different.name)).__name__
    place = f"`{different.name}` ({kind})"
    where = f"at position {different.position}" + (", not before" if different.position else " already")
    if different.inputs_differ:
        return ExportError(
            f"step by step, {place} is given something else than in the whole sequence {where}: the code in front of "
            "it mixes positions or depends on their number, as an added table of positions does",
            hint=general,
        )
    return ExportError(
        f"step by step, {place} gives something else than in the whole sequence {where}, although it is given the "
        "same: it mixes positions",
        hint=general,
    )
