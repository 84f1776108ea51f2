"""Exports a task's model as it is: convert, prove, measure. Nothing is compressed but by an export's `precision`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import ExportError
from compressor.files import write_whole, writing
from compressor.formats import Job, export
from compressor.measure import accuracy, latency, size
from compressor.nn.converted.lssl import set_rate_scale
from compressor.pipeline import programs
from compressor.pipeline.dry_run import try_out
from compressor.pipeline.environment import environment
from compressor.pipeline.exporting import refusal
from compressor.pipeline.measuring import evaluate
from compressor.progress import Progress, Silent
from compressor.report import Artifact, ExportedFile, ExportReport, Score, Skip
from compressor.runtimes.resources import check_threads
from compressor.task.fixed_axes import fixed
from compressor.task.forwards import TorchForward
from compressor.task.samples import given
from compressor.task.submodule_tasks import stem_of, tasks_of_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from compressor.formats import ExportOptions
    from compressor.report import Latency
    from compressor.task.contract import Inputs, Task
    from compressor.task.guard import GuardedTask
    from compressor.task.samples import Sample

    _Files = list[tuple[Task, Artifact]]

REPORT_FILE = "export.json"
_TIMED_SECONDS = 2.0
"""That latency may take of each file."""
_SILENT = Silent()


def export_alone(
    task: GuardedTask,
    exports: Sequence[ExportOptions],
    out: Path,
    *,
    measure: bool = True,
    metric_drop: float | None = None,
    rate_scale: float | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: Progress = _SILENT,
) -> ExportReport:
    """Write the task's model in every format into `out`, and the report beside them.

    Args:
        task: The model, its examples and its metric.
        exports: One for each file.
        out: Folder of the files; files of the same names are replaced once the new ones have passed every check.
        measure: Compute the metric on PyTorch and on each file, and time the files.
        metric_drop: What rounding may cost of the metric; None: there is no limit.
        rate_scale: Length of a step of the task's data in steps of training, for state-space layers.
        threads: Threads of a runtime while it is timed.
        seed: Of examples.
        progress: Told what begins.

    Raises:
        ExportError: All exports failed.
        CompressorError: Other invalid input.
    """
    check_threads(threads)
    model = task.model()
    scaled = () if rate_scale is None else (_scaled(model, rate_scale),)
    progress.say("trying the task")
    real = try_out(task, model, torch.device("cpu"), trains=False)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    groups, runnable, refused = _files(task, model, exports, out, real, metric_drop, seed, progress)
    score: Score | None = None
    measured: list[ExportedFile] = [ExportedFile(artifact=artifact) for group in groups for _, artifact in group]
    if measure:
        progress.say("evaluating the model in PyTorch")
        score = accuracy.score(task, TorchForward(model, torch.device("cpu")), seed=seed)
        measured = _measured(task, groups, out, threads, seed, progress)
    _, notes = programs.write(out, runnable, seed=seed)
    report = ExportReport(
        task=task.name,
        remark=task.remark,
        parameters=size.count(model)[0],
        score=score,
        files=tuple(measured),
        refused=tuple(refused),
        notes=(*task.notes, *scaled, *notes),
        environment=environment(torch.device("cpu")),
    )
    write_whole(out / REPORT_FILE, (report.model_dump_json(indent=2) + "\n").encode())
    return report


def _scaled(model: nn.Module, scale: float) -> str:
    """Let a model take data at another sampling rate, in place; what the report says of it."""
    count = set_rate_scale(model, scale)
    layers = "1 state-space layer takes" if count == 1 else f"{count} state-space layers take"
    return f"{layers} steps {scale:g} times as long as in training; the metric is that of the task's data."


def _files(
    task: GuardedTask,
    model: nn.Module,
    exports: Sequence[ExportOptions],
    out: Path,
    real: tuple[Sample, ...],
    metric_drop: float | None,
    seed: int,
    progress: Progress,
) -> tuple[list[_Files], list[tuple[Artifact, Task]], list[Skip]]:
    """The files of each export with the tasks of their sizes, those that programs can run, and what was refused."""
    written: list[_Files] = []
    runnable: list[tuple[Artifact, Task]] = []
    refused: list[Skip] = []
    parts = tasks_of_files(task, model, task.submodules)
    shared: dict[tuple[Any, ...], Any] | None = {} if len(exports) > 1 else None
    left = None if metric_drop is None else metric_drop / len(parts)
    for options in exports:
        made: _Files = []
        try:
            for module, part, own in parts:
                path = out / options.file_name(stem_of(options.name, module))
                progress.say(f"exporting {path.name}")
                samples = given(own, real)
                artifact = export(
                    Job(
                        part,
                        own,
                        path,
                        options,
                        seed=seed,
                        progress=progress,
                        real=samples,
                        metric_drop=left,
                        shared=shared,
                    )
                )
                made.append((fixed(own, options.fixed_shapes), artifact))
        except ExportError as error:
            for name in (name for _, artifact in made for name in artifact.files):
                (out / name).unlink()  # some modules of a model are no model
            if len(exports) == 1:
                raise
            refused.append(refusal(path.name, error))
            progress.say(f"{path.name} is refused: {refused[-1].reason}")
            continue
        written.append(made)
        runnable += [(artifact, own) for own, artifact in made if options.has_programs]
    if not written:
        raise ExportError("all exports failed:\n" + "\n".join(f"  {skip.name}: {skip.reason}" for skip in refused))
    return written, runnable, refused


def _measured(
    task: GuardedTask,
    groups: Sequence[_Files],
    out: Path,
    threads: int,
    seed: int,
    progress: Progress,
) -> list[ExportedFile]:
    """The metric and the latency of each file; the files of several modules have one metric together."""
    paths = [out / artifact.path for group in groups for _, artifact in group]
    scores: list[Score] = []
    inputs: list[Inputs] = []
    for group in groups:
        progress.say(f"evaluating {', '.join(artifact.path for _, artifact in group)}")
        tasks = [own for own, _ in group]
        examined, calls = evaluate([out / artifact.path for _, artifact in group], tasks, seed=seed)
        scores += [examined.score] * len(group)
        inputs += calls
    artifacts = [artifact for group in groups for _, artifact in group]
    progress.say(f"timing {', '.join(path.name for path in paths)}")
    latencies: list[Latency]
    latencies, _ = latency.compare(
        paths,
        inputs,
        batch=1,
        length=task.length,
        threads=threads,
        max_seconds=_TIMED_SECONDS * len(paths),
        seed=seed,
        progress=progress,
    )
    return [
        ExportedFile(artifact=artifact, score=score, latency=timed)
        for artifact, score, timed in zip(artifacts, scores, latencies, strict=True)
    ]
