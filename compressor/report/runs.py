"""Several runs of one task side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compressor.errors import ReportError
from compressor.report.document import Document
from compressor.report.fact import Fact
from compressor.report.scores import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from compressor.report.measurements import Measurement
    from compressor.report.report import Report


class RunFile(Fact):
    """One exported file of one run."""

    run: str
    """The folder, as it was given; empty for an original."""
    name: str
    """Of the recipe."""
    file: str
    metric: float
    interval: Interval | None = None
    """Of the metric."""
    bytes: int
    latency_ms: float | None = None
    """The median."""
    speedup: float | None = None
    """The run's original / this file, both timed in that run; None for an original and if it was not timed."""
    parameters: int
    limits_met: bool | None = None
    """Of the run; None if it has none, or this is an original."""
    unbeaten: bool = False
    """No other of these files is at least as good in metric, bytes and latency, and better in one of them."""


class Runs(Document):
    """What `compressor report DIR DIR ... --format json` writes."""

    NAME: ClassVar[str] = "a comparison of runs"
    AGAIN: ClassVar[str] = "give the command again"

    task: str
    metric: str
    higher_is_better: bool
    files: tuple[RunFile, ...]
    """Originals, each once, then the files of the runs in the order given."""
    notes: tuple[str, ...] = ()
    """In what the runs differ beside their recipes."""


def side_by_side(reports: Sequence[tuple[str, Report]]) -> Runs:
    """The files of several runs, by their folders.

    Raises:
        ReportError: They are of different tasks or metrics, so no number of theirs can be compared.
    """
    first = reports[0][1]
    for folder, report in reports[1:]:
        _refuse_other(reports[0][0], first, folder, report)
    originals = {_identity(file): file for _, report in reports for file in (report.original, *report.elsewhere)}
    files = [
        *(_file("", "original", file) for file in originals.values()),
        *(one for folder, report in reports for one in _files(folder, report)),
    ]
    score = first.original.score
    return Runs(
        task=first.task,
        metric=score.metric,
        higher_is_better=score.higher_is_better,
        files=tuple(_marked(file, files, score.higher_is_better) for file in files),
        notes=tuple(_notes(reports)),
    )


def _refuse_other(first_folder: str, first: Report, folder: str, report: Report) -> None:
    ours, theirs = first.original.score, report.original.score
    for what, one, other in (
        ("tasks", first.task, report.task),
        ("metrics", ours.metric, theirs.metric),
        ("directions of the metric", ours.higher_is_better, theirs.higher_is_better),
    ):
        if one != other:
            raise ReportError(
                f"runs of different {what} cannot be compared: `{one}` in {first_folder}, `{other}` in {folder}",
                hint="give runs of one task; `compressor report DIR` shows each by itself",
            )


def _identity(file: Measurement) -> tuple[str, str, int, float]:
    return file.artifact.format, file.artifact.sha256, file.artifact.bytes, file.score.value


def _files(folder: str, report: Report) -> Iterator[RunFile]:
    for file, speedup in zip(report.compressed, report.speedups, strict=True):
        met = report.limits_met if report.limits else None
        ratio = None if speedup is None else speedup.ratio
        yield _file(folder, report.name, file).model_copy(update={"speedup": ratio, "limits_met": met})


def _file(folder: str, name: str, file: Measurement) -> RunFile:
    return RunFile(
        run=folder,
        name=name,
        file=file.artifact.path,
        metric=file.score.value,
        interval=file.score.interval,
        bytes=file.artifact.bytes,
        latency_ms=None if file.latency is None else file.latency.p50,
        parameters=file.parameters,
    )


def _marked(file: RunFile, files: Sequence[RunFile], higher_is_better: bool) -> RunFile:
    beaten = any(_beats(other, file, higher_is_better) for other in files)
    return file.model_copy(update={"unbeaten": not beaten})


def _beats(other: RunFile, file: RunFile, higher_is_better: bool) -> bool:
    """At least as good in everything, and better in something; a file without a latency is not compared by it."""
    sign = 1.0 if higher_is_better else -1.0
    pairs = [(-sign * other.metric, -sign * file.metric), (float(other.bytes), float(file.bytes))]
    if other.latency_ms is not None and file.latency_ms is not None:
        pairs.append((other.latency_ms, file.latency_ms))
    return all(one <= two for one, two in pairs) and any(one < two for one, two in pairs)


def _notes(reports: Sequence[tuple[str, Report]]) -> Iterator[str]:
    rehearsed = [folder for folder, report in reports if report.quick]
    if rehearsed:
        yield f"Rehearsals (--quick), whose numbers do not count: {', '.join(rehearsed)}."
    for what, of in _CONDITIONS.items():
        values = dict.fromkeys(of(report) for _, report in reports)
        if len(values) > 1:
            yield f"{what} differ: {', '.join(str(value) for value in values)}."


def _timing(report: Report) -> str:
    timed = report.original.latency
    if timed is None:
        return "not timed"
    sizes = f"batch {timed.batch}, length {timed.length}"
    return f"{timed.runtime}, {timed.threads} threads, {sizes}, {report.environment.cpu}"


_CONDITIONS: dict[str, Callable[[Report], object]] = {
    "Samples of the metric": lambda report: report.original.score.samples,
    "Seeds": lambda report: report.seed,
    "Conditions of the latency, so compare ratios only,": _timing,
}
