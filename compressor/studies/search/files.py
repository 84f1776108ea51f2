"""Writes the files of a model for a moment, and measures them: bytes, metric, latency."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.formats import Job, export
from compressor.measure import latency
from compressor.pipeline import measuring
from compressor.task.fixed_axes import fixed
from compressor.task.narrowed_states import NarrowedStates
from compressor.task.samples import given
from compressor.task.submodules import stem_of, tasks_of_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.formats import ExportOptions
    from compressor.measure.accuracy import Examined
    from compressor.methods.base import State
    from compressor.studies.search.subject import Subject
    from compressor.task.contract import Inputs, Task

_SECONDS: Final = 5.0
"""Rough limit of timing a file."""


@dataclass(frozen=True)
class Written:
    """What was measured on the files of a model; they are gone again."""

    bytes: int
    """Of all of them."""
    examined: Examined
    """By the function that the search looks at."""
    unseen: Examined | None
    """By `evaluate`, if the search looks at `validate`."""
    latency_ms: float | None


def write(subject: Subject, state: State, options: ExportOptions, *, timed: bool) -> Written:
    """Export a model as a run does, evaluate what was written, and remove it.

    Args:
        subject: The task.
        state: The model and its record.
        options: Of the format.
        timed: Whether latency is measured.

    Raises:
        ExportError: It cannot be written, or disagrees with PyTorch.
        TaskError: The metric cannot be computed.
    """
    task = NarrowedStates(subject.task, state.structure)
    parts = tasks_of_files(task, copy.deepcopy(state.model).cpu().eval(), subject.task.submodules)
    with tempfile.TemporaryDirectory(prefix="compressor-search-") as folder:
        paths, tasks, size = [], [], 0
        for module, part, own in parts:
            path = Path(folder) / options.file_name(stem_of(options.name, module))
            artifact = export(Job(part, own, path, options, seed=subject.seed, real=given(own, subject.real)))
            size += artifact.bytes
            paths.append(path)
            tasks.append(fixed(own, options.fixed_shapes))
        examined, calls = measuring.evaluate(paths, tasks, seed=subject.seed, validation=subject.validates)
        unseen = measuring.evaluate(paths, tasks, seed=subject.seed)[0] if subject.validates else None
        milliseconds = _latency(paths, tasks, calls, subject.seed) if timed else None
    return Written(size, examined, unseen, milliseconds)


def _latency(paths: Sequence[Path], tasks: Sequence[Task], calls: Sequence[Inputs], seed: int) -> float:
    """Median of one call; the sum of the files of several modules."""
    measured, _ = latency.compare(
        paths, calls, batch=1, length=tasks[0].length, seed=seed, max_seconds=_SECONDS * len(paths)
    )
    return sum(one.p50 for one in measured)
