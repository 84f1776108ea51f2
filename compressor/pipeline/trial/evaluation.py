"""Trials of `evaluate` and `validate`: twice, to the end if that is quick."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.measure import accuracy
from compressor.pipeline.trial.results import equal, problem, refuse_other_lengths
from compressor.task.forwards import AdaptedForward, TorchForward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from compressor.measure.accuracy import Examined
    from compressor.task.contract import Inputs
    from compressor.task.guard import GuardedTask

    Function = Literal["evaluate", "validate"]

_EVALUATED = 2
"""Calls of the model that are always waited for."""
SECONDS = 1.0
"""After which a trial is stopped."""
_SAME = 1e-3
"""Largest difference of two metrics of one model, relative to them."""


class _Enough(BaseException):
    """Stops a trial; no `except Exception` of the user's holds it up."""


def try_evaluation(task: GuardedTask, forward: TorchForward, function: Function = "evaluate") -> Inputs | None:
    """Evaluate twice: the model must be called, on the same inputs each time, and the metric must be the same.

    If it takes long, only the inputs of its first calls are compared. Gives the inputs of the first call, None if that
    was one of a module alone.
    """
    started = time.monotonic()
    first, metric = _begun(task, forward, function)
    slow = time.monotonic() - started > SECONDS
    second, again = _begun(task, forward, function, stop_at=len(first.seen) if slow else None)
    if not first.seen:
        raise problem(
            task,
            f"`{function}` never calls `forward`, so its metric is not one of the model",
            "call `forward(...)` as you would call the model",
        )
    whole = metric is not None and again is not None
    calls = zip(first.seen, second.seen, strict=False)
    if (whole and len(first.seen) != len(second.seen)) or not all(equal(*pair) for pair in calls):
        raise problem(
            task,
            f"`{function}` calls the model with other inputs each time, so that two models cannot be compared",
            "evaluate on the same samples in the same order: fix the seed, and do not shuffle",
        )
    if metric is not None and again is not None:
        _refuse_changing(task, metric, again, function)
    if first.whole is not None:
        refuse_other_lengths(task, first.whole, f"the first call of the model in `{function}`")
    return first.whole


def _refuse_changing(task: GuardedTask, metric: Examined, again: Examined, function: Function) -> None:
    one, other = metric.score, again.score
    if one.samples != other.samples:
        what = f"gives {one.samples} samples, and {other.samples} in a second call"
    elif abs(one.value - other.value) > _SAME * max(abs(one.value), abs(other.value)):
        what = f"gives {one.value:.6g}, and {other.value:.6g} in a second call with the same model and inputs"
    else:
        return
    raise problem(
        task, f"`{function}` {what}", "two models can only be compared by a metric that is the same each time"
    )


def _begun(
    task: GuardedTask, forward: TorchForward, function: Function, stop_at: int | None = None
) -> tuple[_Watched, Examined | None]:
    """What the model, or its modules, were called with, and the metric if it was computed in time.

    Stops before the call of number `stop_at` is carried out, if one is given.
    """
    watched = _Watched(forward, stop_at)
    with suppress(_Enough), task.placed():
        return watched, accuracy.examine(task, watched, validation=function == "validate")
    return watched, None


class _Watched(AdaptedForward):
    """Notes the inputs of calls, and stops when there were some and time is up."""

    def __init__(self, forward: TorchForward, stop_at: int | None) -> None:
        super().__init__(forward, self._note_whole)
        self._stop_at = stop_at
        self._end = time.monotonic() + SECONDS
        self.seen: list[list[Tensor]] = []
        self.whole: Inputs | None = None
        """Of the first call, if it was one of the whole model."""

    def submodule(self, path: str) -> Callable[..., Any]:
        module = super().submodule(path)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._note(part for part in pytree.tree_leaves((args, kwargs)) if isinstance(part, Tensor))
            return module(*args, **kwargs)

        return call

    def _note_whole(self, inputs: Inputs) -> Inputs:
        self._note(inputs)
        if len(self.seen) == 1:
            self.whole = tuple(inputs)
        return inputs

    def _note(self, inputs: Iterable[Tensor]) -> None:
        if len(self.seen) >= _EVALUATED and time.monotonic() > self._end:
            raise _Enough
        self.seen.append(list(inputs))
        if len(self.seen) == self._stop_at:
            raise _Enough
