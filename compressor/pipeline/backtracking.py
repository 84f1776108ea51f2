"""Limits of a step that act: a step that costs too much is carried out again, milder, by bisection on its ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import MethodError
from compressor.measure import accuracy
from compressor.methods.milder import RemovalMethod
from compressor.methods.placing import carried_out
from compressor.task.forwards import TorchForward
from compressor.task.view import has_validation_data

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.methods.base import Context, Method, State, StepResult


@dataclass(frozen=True)
class Carried:
    """A step that was carried out."""

    step: Method
    """As it was asked for, or milder."""
    result: StepResult
    notes: tuple[str, ...] = ()


def carry_out(step: Method, before: State, context: Context) -> Carried:
    """Apply a step; if it misses its own limit and is to backtrack, the largest part of it that was found to hold.

    Every attempt starts from the same random numbers. The first is the whole step, then half of it, and so on between
    the largest part that held and the smallest that did not; if none held, the mildest is kept.

    Raises:
        MethodError: The step cannot be carried out at all.
    """
    if not isinstance(step, RemovalMethod) or step.limits is None:
        return Carried(step, carried_out(step, before, context))
    start = context.generator.get_state()
    first = _Attempt.of(step, 1.0, before, context)
    limit = step.limits
    if first.drop <= limit.metric_drop + 1e-9:
        return first.carried((f"It loses {first.drop:.4g} of the metric; its limit is {limit.metric_drop:g}.",))
    missed = f"It loses {first.drop:.4g} of the metric, more than its limit of {limit.metric_drop:g}."
    if limit.on_miss == "report":
        return first.carried((missed,))
    attempts, held, low, high = [first], None, 0.0, 1.0
    for _ in range(limit.tries):
        part = (low + high) / 2
        context.progress.say(f"the step loses {attempts[-1].drop:.4g}; trying {part:.3g} of it")
        context.generator.set_state(start)
        try:
            attempt = _Attempt.of(step, part, before, context)
        except MethodError:  # so little that nothing goes
            low = part
            continue
        attempts.append(attempt)
        if attempt.drop <= limit.metric_drop + 1e-9:
            held, low = attempt, part
        else:
            high = part
    kept = held or attempts[-1]
    context.generator.set_state(kept.after)
    tried = ", ".join(f"{attempt.part:.3g} of it loses {attempt.drop:.4g}" for attempt in attempts[1:])
    found = f"Kept: {kept.part:.3g} of it." if held else f"None held; kept: {kept.part:.3g} of it."
    return kept.carried((missed, f"Tried again milder: {tried or 'nothing less could go'}. {found}"))


@dataclass(frozen=True)
class _Attempt:
    part: float
    step: Method
    result: StepResult
    drop: float
    after: torch.Tensor
    """State of the random numbers."""

    @classmethod
    def of(cls, step: RemovalMethod, part: float, before: State, context: Context) -> _Attempt:
        milder = step if part == 1.0 else step.milder(part)
        result = carried_out(milder, before, context)
        drop = _metric(context.original, context) - _metric(result.state.model, context)
        sign = 1.0 if context.task.higher_is_better else -1.0
        return cls(part, milder, result, sign * drop + 0.0, context.generator.get_state())

    def carried(self, notes: tuple[str, ...]) -> Carried:
        return Carried(self.step, self.result, notes)


def _metric(model: nn.Module, context: Context) -> float:
    """By `validate` if the task has it, so that no step is chosen by the data that the report is about."""
    forward = TorchForward(model, context.device)
    return accuracy.score(context.task, forward, validation=has_validation_data(context.task)).value
