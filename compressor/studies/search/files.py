"""Writes the files of a model for a moment, and measures them: bytes, metric, latency."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.formats import Job, export
from compressor.measure import latency
from compressor.onnx_graphs.partition import survey
from compressor.pipeline import measuring
from compressor.runtimes import loading
from compressor.task.fixed_axes import fixed
from compressor.task.samples import given
from compressor.task.submodule_tasks import stem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from compressor.formats import ExportOptions
    from compressor.measure.accuracy import Examined
    from compressor.onnx_graphs.partition import Refusal
    from compressor.onnx_graphs.targets import Target
    from compressor.report import Emulated
    from compressor.studies.search.compressed import Compressed
    from compressor.studies.search.subject import Subject
    from compressor.task.contract import Inputs, Task

_SECONDS: Final = 5.0
"""Rough limit of timing a file."""


@dataclass(frozen=True)
class Taken:
    """What the files of a model take."""

    bytes: int
    flash_bytes: int | None = None
    """On an emulated board; None without one."""
    ram_bytes: int | None = None


@dataclass(frozen=True)
class Written:
    """What was measured on the files of a model; they are gone again."""

    bytes: int
    """Of all of them."""
    examined: Examined
    """By the function that the search looks at."""
    unseen: Examined | None
    """By `evaluate`, if the search looks at `validate` and the file is worth it."""
    latency_ms: float | None
    refused: tuple[Refusal, ...] = ()
    """What the target does not take."""
    flash_bytes: int | None = None
    """On an emulated board, of all files; None without one."""
    ram_bytes: int | None = None

    @property
    def taken(self) -> Taken:
        """The sizes alone."""
        return Taken(self.bytes, self.flash_bytes, self.ram_bytes)


@dataclass(frozen=True)
class _Files:
    """The files of a model in a folder that is removed soon."""

    paths: list[Path]
    tasks: list[Task]
    """One for each file, with the sizes that it fixes."""
    bytes: int
    emulated: list[Emulated]
    """What they take on a board, if they are exported for one."""

    def taken(self) -> Taken:
        """Their sizes, those on a board added up."""
        if not self.emulated:
            return Taken(self.bytes)
        flash, ram = (sum(getattr(one, name) for one in self.emulated) for name in ("flash_bytes", "ram_bytes"))
        return Taken(self.bytes, flash, ram)


@contextmanager
def _exported(subject: Subject, model: Compressed, options: ExportOptions) -> Iterator[_Files]:
    """Export a model as a run does."""
    with tempfile.TemporaryDirectory(prefix="compressor-search-") as folder:
        paths, tasks, size, emulated = [], [], 0, []
        for module, part, own in model.parts:
            path = Path(folder) / options.file_name(stem_of(options.name, module))
            real = given(own, subject.real)
            artifact = export(Job(part, own, path, options, seed=subject.seed, real=real, shared=model.shared))
            size += artifact.bytes
            emulated += [artifact.emulated] if artifact.emulated else []
            paths.append(path)
            tasks.append(fixed(own, options.fixed_shapes))
        yield _Files(paths, tasks, size, emulated)


def write(
    subject: Subject,
    model: Compressed,
    options: ExportOptions,
    *,
    timed: bool,
    target: Target | None = None,
    worth_more: Callable[[Examined], bool] = lambda _: True,
) -> Written:
    """Export a model as a run does, evaluate what was written, and remove it.

    Args:
        subject: The task.
        model: After the steps of a recipe.
        options: Of the format.
        timed: Whether latency is measured.
        target: Whose table is asked what it takes.
        worth_more: Given the metric: whether `evaluate` too, and the latency, are of any use.

    Raises:
        ExportError: It cannot be written, or disagrees with PyTorch.
        TaskError: The metric cannot be computed.
    """
    with _exported(subject, model, options) as files:
        examined, calls = measuring.evaluate(files.paths, files.tasks, seed=subject.seed, validation=subject.validates)
        more = worth_more(examined)
        further = more and subject.validates
        unseen = measuring.evaluate(files.paths, files.tasks, seed=subject.seed)[0] if further else None
        milliseconds = _latency(files.paths, files.tasks, calls, subject.seed) if more and timed else None
        refused = () if target is None else refusals(files.paths, target)
        taken = files.taken()
    return Written(taken.bytes, examined, unseen, milliseconds, refused, taken.flash_bytes, taken.ram_bytes)


def taken_by(subject: Subject, model: Compressed, options: ExportOptions) -> Taken:
    """What the files of a model take, which are removed again; raises `ExportError` as `write`."""
    with _exported(subject, model, options) as files:
        return files.taken()


def fastest_ms(subject: Subject, model: Compressed, options: ExportOptions) -> float:
    """The fastest of some calls of the files of a model, with one sample of the task's length.

    Raises:
        ExportError: As `write`.
    """
    with _exported(subject, model, options) as files:
        calls = [task.example(1, task.length) for task in files.tasks]
        measured, _ = latency.compare(
            files.paths, calls, batch=1, length=files.tasks[0].length, seed=subject.seed, max_seconds=_SECONDS
        )
    return sum(min(one.samples, default=one.p10) for one in measured)


def refused_by(target: Target, subject: Subject, model: Compressed, options: ExportOptions) -> tuple[Refusal, ...]:
    """What a target does not take of the files of a model, which are removed again; raises `ExportError` as `write`."""
    with _exported(subject, model, options) as files:
        return refusals(files.paths, target)


def refusals(paths: Iterable[Path], target: Target) -> tuple[Refusal, ...]:
    """What a target does not take of some files."""
    return tuple(refusal for path in paths for refusal in survey(loading.read(path), target).refusals)


def _latency(paths: Sequence[Path], tasks: Sequence[Task], calls: Sequence[Inputs], seed: int) -> float:
    """Median of one call; the sum of the files of several modules."""
    measured, _ = latency.compare(
        paths, calls, batch=1, length=tasks[0].length, seed=seed, max_seconds=_SECONDS * len(paths)
    )
    return sum(one.p50 for one in measured)
