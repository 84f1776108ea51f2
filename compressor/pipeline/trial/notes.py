"""What is no error of a task, but its author would want to know: notes for the report."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import first_line
from compressor.pipeline.trial.results import problem
from compressor.task.axes import BATCH
from compressor.task.fidelity import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from compressor.task.contract import Inputs
    from compressor.task.guard import GuardedTask
    from compressor.task.samples import Sample

_LOWER_IS_BETTER = re.compile(
    r"(^|[^a-z])(loss|errors?|wer|cer|per|eer|r?mse|mae|mape|perplexity|ppl|nll|bpc|cross[ _-]?entropy)([^a-z]|$)"
)
_APART = 1e-3
"""Of the largest output: other samples in a batch change the last digits, no more."""
_TELLING = 8
"""Numbers in a sample, above which two that are equal are no chance."""


def notes(
    task: GuardedTask, forward: Callable[..., Any], example: Inputs, outputs: Any, real: Sequence[Sample]
) -> Iterator[str]:
    """Sentences for the report.

    Args:
        task: The user's task.
        forward: Its model.
        example: Inputs of two samples.
        outputs: The results for these.
        real: Inputs of the task's own data.

    Raises:
        TaskError: The model does not run on one sample, or loses the axis of samples.
    """
    if task.higher_is_better and _LOWER_IS_BETTER.search(task.metric.lower()):
        yield (
            f"The metric `{task.metric}` is taken to be better if it is higher: set `higher_is_better = False` in the "
            "task if that is wrong."
        )
    yield from _of_batch(task, forward, example, tensors_of(outputs))
    yield from _of_inputs(task, forward, example, tensors_of(outputs))
    yield from _of_data(real)


def _of_batch(
    task: GuardedTask, forward: Callable[..., Any], example: Inputs, outputs: Sequence[Tensor]
) -> Iterator[str]:
    """Whether what a sample gives depends on the others in its batch."""
    if not any(BATCH in axes.values() for axes in task.inputs.values()):
        return
    alone = tensors_of(_alone(task, forward, example))
    for (name, axes), both, one in zip(task.outputs.items(), outputs, alone, strict=True):
        if one.dim() != both.dim():
            raise problem(
                task,
                f"`{name}` has {both.dim()} axes for two samples and {one.dim()} for one",
                "name the axis that goes: `squeeze(-1)` instead of `squeeze()`",
            )
        axis = _axis(axes)
        first = None if axis is None else both.narrow(axis, 0, 1)
        if first is None or first.shape != one.shape or not one.is_floating_point() or not one.numel():
            continue
        off = float((one - first).abs().nan_to_num(posinf=0.0).max())
        if off > _APART * float(both.abs().nan_to_num(posinf=0.0).max()):
            yield (
                f"What the model gives for a sample in `{name}` depends on the other samples of its batch: one sample "
                "alone, as on a device, gives something else than in an evaluation of many."
            )


def _alone(task: GuardedTask, forward: Callable[..., Any], example: Inputs) -> Any:
    one = [
        part if _axis(axes) is None else part.narrow(_axis(axes) or 0, 0, 1)
        for part, axes in zip(example, task.inputs.values(), strict=True)
    ]
    try:
        return forward(*one)
    except Exception as error:
        raise problem(
            task,
            f"the model does not run on one sample: {first_line(error)}",
            "a file is compared at batch size 1 too: name the axis in `squeeze`, and use no statistics of the batch",
        ) from error


def _axis(axes: Mapping[int, str]) -> int | None:
    return next((axis for axis, word in axes.items() if word == BATCH), None)


def _of_inputs(
    task: GuardedTask, forward: Callable[..., Any], example: Inputs, outputs: Sequence[Tensor]
) -> Iterator[str]:
    """Inputs whose values change nothing."""
    others = task.example(2, task.length)
    for index, name in enumerate(task.inputs):
        if others[index].shape != example[index].shape or torch.equal(others[index], example[index]):
            continue
        with suppress(Exception):  # one of an example's inputs may not fit another example's
            mixed = tensors_of(forward(*example[:index], others[index], *example[index + 1 :]))
            if all(torch.equal(*pair) for pair in zip(mixed, outputs, strict=True)):
                yield f"The values of the input `{name}` have no effect on the outputs, between two examples."


def _of_data(real: Sequence[Sample]) -> Iterator[str]:
    """Whether the model is measured on what it learns from."""
    given = {sample.origin: sample.inputs[0] for sample in real}
    if len(given) < 2:
        return
    learnt, measured = given["batches"], given["evaluate"]
    if learnt.shape[1:] != measured.shape[1:] or learnt[:1].numel() < _TELLING:
        return
    for row in measured:
        if bool(row.ne(row.flatten()[0]).any()) and any(torch.equal(row, other) for other in learnt):
            yield "`evaluate` measures on samples that `batches` gives for training; of new data that says little."
            return
