"""The task's own metric, checked, with an interval if the task gives per-sample scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compressor.errors import TaskError
from compressor.measure.statistics import bootstrap_mean
from compressor.report import Drop, Score
from compressor.task.contract import Evaluation
from compressor.task.fixed_axes import dynamic
from compressor.task.submodule_tasks import SubmoduleTask, together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from compressor.task.contract import Task

_MEAN_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Examined:
    """A score and the per-sample scores (N,) behind it, kept for a paired comparison."""

    score: Score
    per_sample: NDArray[np.float64] | None
    groups: NDArray[np.intp] | None = None
    """The group 0..G-1 of each sample (N,); None if each is one of its own."""


def score(
    task: Task, forward: Callable[..., Any], *, validation: bool = False, confidence: float = 0.95, seed: int = 0
) -> Score:
    """The task's metric on `forward`; see `examine`."""
    return examine(task, forward, validation=validation, confidence=confidence, seed=seed).score


def examine(
    task: Task, forward: Callable[..., Any], *, validation: bool = False, confidence: float = 0.95, seed: int = 0
) -> Examined:
    """Run `task.evaluate(forward)`, or `validate`, without gradients and check what comes back.

    Args:
        task: whose metric.
        forward: the PyTorch model or an exported file.
        validation: call `validate` instead of `evaluate`.
        confidence: of the bootstrap interval over samples.
        seed: of the bootstrap.

    Raises:
        TaskError: the function gave something else than a finite metric; the message names it and what came back.
    """
    function = "validate" if validation else "evaluate"
    with torch.no_grad():
        returned = (task.validate if validation else task.evaluate)(forward)
    value, samples, parts = _read(function, returned)
    groups = _groups(function, returned, samples)
    interval = None if samples is None else bootstrap_mean(samples, groups=groups, confidence=confidence, seed=seed)
    result = Score(
        metric=task.metric,
        value=value,
        higher_is_better=task.higher_is_better,
        interval=interval,
        samples=None if samples is None else len(samples),
        groups=None if groups is None else int(groups.max()) + 1,
        parts=parts,
    )
    return Examined(result, samples, groups)


def examine_files(
    tasks: Sequence[Task], forwards: Sequence[Any], *, validation: bool = False, seed: int = 0
) -> Examined:
    """`examine` of one file, or of the files of a model's modules together.

    Args:
        tasks: of the files.
        forwards: the files.
        validation: call `validate` instead of `evaluate`.
        seed: of the bootstrap.
    """
    modules = {dynamic(task): forward for task, forward in zip(tasks, forwards, strict=True)}
    parts = {task: forward for task, forward in modules.items() if isinstance(task, SubmoduleTask)}
    if not parts:
        return examine(tasks[0], forwards[0], validation=validation, seed=seed)
    return examine(next(iter(parts)).task, together(parts), validation=validation, seed=seed)


def drop(original: Examined, compressed: Examined, *, confidence: float = 0.95, seed: int = 0) -> Drop:
    """How much worse `compressed` scores than `original`, with a paired bootstrap interval over the samples.

    Both files see the same samples, so the difference is taken sample by sample before resampling; what makes a
    sample hard for both falls out, and the interval is tighter than the two scores' own ones suggest. It is left
    out if a file gave no per-sample scores, the counts differ, or every sample changed by the same amount.
    """
    sign = 1.0 if original.score.higher_is_better else -1.0
    value = sign * (original.score.value - compressed.score.value) + 0.0  # never -0.0
    first, second = original.per_sample, compressed.per_sample
    if first is None or second is None or len(first) != len(second):
        return Drop(value=value)
    losses = sign * (first - second)
    return Drop(value=value, interval=bootstrap_mean(losses, groups=original.groups, confidence=confidence, seed=seed))


def _read(function: str, returned: object) -> tuple[float, NDArray[np.float64] | None, dict[str, float]]:
    """The metric, the per-sample scores and the parts in what a task's function returned."""
    if isinstance(returned, Tensor) and returned.dim() == 1:
        samples = _per_sample(function, returned)
        return float(samples.mean()), samples, {}
    if not isinstance(returned, Evaluation):
        return _number(f"`{function}`", returned), None, {}
    named = f"`{function}`'s Evaluation"
    parts = {str(name): _number(f"part `{name}` of {named}", part) for name, part in returned.parts.items()}
    if returned.per_sample is None:
        return _number(f"`value` of {named}", returned.value), None, parts
    samples = _per_sample(function, returned.per_sample)
    mean = float(samples.mean())
    if returned.value is None:
        return mean, samples, parts
    value = _number(f"`value` of {named}", returned.value)
    if abs(value - mean) > _MEAN_TOLERANCE * max(1.0, abs(mean)):
        raise TaskError(
            f"`value` of {named} is {value:.6g}, but the mean of its `per_sample` is {mean:.6g}",
            hint="leave `value` out, or give per-sample scores whose mean is the metric",
        )
    return value, samples, parts


def _number(source: str, value: object) -> float:
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_complex() and value.dtype != torch.bool:
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TaskError(
            f"{source} is {_describe(value)}, not a metric",
            hint="return a float, a tensor of per-sample scores (N,), or an Evaluation",
        )
    number = float(value)
    if not math.isfinite(number):
        raise TaskError(f"{source} is {number}", hint="the metric must be a finite number; look for a division by zero")
    return number


def _per_sample(function: str, scores: object) -> NDArray[np.float64]:
    source = f"`{function}`'s per-sample scores"
    if not isinstance(scores, Tensor) or scores.dim() != 1 or scores.is_complex():
        raise TaskError(f"{source} are {_describe(scores)}", hint="return a real tensor of shape (N,)")
    if not len(scores):
        raise TaskError(f"{source} are empty", hint="evaluate on at least one sample")
    array: NDArray[np.float64] = scores.detach().to("cpu", torch.float64).numpy()
    wrong = int(np.count_nonzero(~np.isfinite(array)))
    if wrong:
        raise TaskError(
            f"{source} hold {wrong} of {len(array)} that are NaN or infinite", hint="give a finite score per sample"
        )
    return array


def _groups(function: str, returned: object, samples: NDArray[np.float64] | None) -> NDArray[np.intp] | None:
    """The group of each sample as a number from 0 on; None if the function named none."""
    if not isinstance(returned, Evaluation) or returned.groups is None:
        return None
    source, given = f"`groups` of `{function}`'s Evaluation", returned.groups
    names = given.tolist() if isinstance(given, Tensor) else list(given)
    if samples is None or len(names) != len(samples):
        scores = "no per-sample scores" if samples is None else f"{len(samples)} per-sample scores"
        raise TaskError(f"{source} names {len(names)} samples, beside {scores}", hint="give one entry a sample")
    numbers: NDArray[np.intp] = np.unique(np.array([str(name) for name in names]), return_inverse=True)[1]
    return numbers


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return "None" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
