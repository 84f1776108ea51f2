"""How a task's model is called: found by calling it at several sizes, held against what the task declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import TaskError
from compressor.task.axes import Observed, Sized, check_declared
from compressor.task.model_checks import changed_tensors, kept_tensors
from compressor.task.signature import Call, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from compressor.task.axes import Axes
    from compressor.task.guard import GuardedTask

_BATCHES = (2, 3)
"""Batch sizes at which the model is called; 1 would be taken for an axis that can be left out."""


@dataclass(frozen=True)
class Calls:
    """What is known of a model's calls."""

    signature: Signature
    inputs: Axes
    """Name of each tensor that goes in -> {axis: name of the open axis}."""
    outputs: Axes


def learn_calls(task: GuardedTask, model: nn.Module, inputs: Axes, outputs: Axes) -> Calls:
    """Call `model` at two batch sizes and two lengths of the task's example.

    Args:
        task: Gives examples and the range of lengths.
        model: In evaluation mode, with the user's own `forward`.
        inputs: What the task declares; empty: names and axes are found.
        outputs: The same.

    Raises:
        TaskError: The model does not take the example, gives another structure at another size, or its axes are not
            those that the task declares.
    """
    batch, more = _BATCHES
    other = _other_length(task.length, task.min_length, task.max_length)
    call = task.arguments(batch, task.length)
    signature = Signature.of_call(model.forward, call)
    if not signature.input_names:
        raise TaskError("`example` gives no tensor", hint="give the tensors that `forward` takes")
    before = kept_tensors(model)
    signature = signature.with_results(run(model, call, (batch, task.length)))
    kept = changed_tensors(model, before)
    sizes = [(batch, task.length), (more, task.length), *([(batch, other)] if other is not None else [])]
    try:
        seen = [_shapes(task, model, signature, size) for size in sizes]
    except TaskError as error:
        raise _of_states(error, kept) from error
    sides = []
    for what, declared, side, found in (
        ("inputs", inputs, 0, signature.input_names),
        ("outputs", outputs, 1, signature.output_names),
    ):
        names = tuple(declared) or found
        if len(names) != len(found):
            raise TaskError(
                f"`{what}` names {len(names)} tensors, but there are {len(found)}: {', '.join(found)}",
                hint=f"name all of them in this order, or leave `{what}` out",
            )
        sized = [Sized(*size, shapes[side]) for size, shapes in zip(sizes, seen, strict=True)]
        observed = Observed(names, sized[0], sized[1], sized[2] if other is not None else None)
        if declared:
            check_declared(observed, declared, what)
        # Inputs that the task declares are as open as it says; outputs follow from them.
        sides.append(declared if declared and what == "inputs" else observed.axes(declared or None))
    return Calls(signature, *sides)


def _of_states(error: TaskError, kept: Sequence[str]) -> TaskError:
    """The same error; if the model keeps something between calls, that is its likely cause."""
    if not kept:
        return error
    return TaskError(
        f"the model keeps a state in `{kept[0]}`, and does not run at another size after that: {error.message}",
        hint="take the state as an input and return the new one; a file remembers nothing between calls",
    )


def _other_length(length: int, shortest: int, longest: int) -> int | None:
    """A second length, shorter if there is one: the model is called at it."""
    if shortest == longest:
        return None
    shorter = max(shortest, length // 2)
    return shorter if shorter != length else length + 1


def _shapes(
    task: GuardedTask, model: nn.Module, signature: Signature, size: tuple[int, int]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of the tensors that go in and come out at one size."""
    call = task.arguments(*size)
    tensors = signature.flatten(call)
    results = run(model, call, size)
    mine = signature.with_results(results).outputs
    if mine is None or signature.outputs is None or mine.spec != signature.outputs.spec:
        raise TaskError(
            f"the model gives another structure at `example{size}` than at `example{_BATCHES[0], task.length}`"
        )
    return [tuple(part.shape) for part in tensors], [tuple(part.shape) for part in _tensors(signature, results)]


def _tensors(signature: Signature, results: Any) -> Sequence[Tensor]:
    flat = signature.flat_results(results)
    return (flat,) if isinstance(flat, torch.Tensor) else flat


def run(model: nn.Module, call: Call, size: tuple[int, int]) -> Any:
    """What the model gives for an example of this batch size and length; raises `TaskError` if it cannot run."""
    try:
        with torch.no_grad():
            return model(*call.args, **call.kwargs)
    except Exception as error:
        parts = [*call.args, *call.kwargs.values()]
        shapes = ", ".join(str(tuple(part.shape)) for part in parts if isinstance(part, torch.Tensor))
        raise TaskError(
            f"the model does not run on `example{size}` of shapes {shapes}: "
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            hint="`example(batch, length)` must give the arguments of the model's `forward`, valid at every length "
            "from `min_length` to `max_length`",
        ) from error
