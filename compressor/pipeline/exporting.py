"""Exports the original and the compressed model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from compressor.errors import ExportError, UsageError
from compressor.formats import Job, export
from compressor.pipeline.parts import Facts
from compressor.recipe.exports import name_of_two_files, originals
from compressor.report import Artifact, Skip
from compressor.task.fixed_axes import fixed
from compressor.task.samples import given
from compressor.task.submodule_tasks import stem_of, tasks_of_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from compressor.formats import ExportOptions
    from compressor.pipeline.setting import Setting
    from compressor.report import Score
    from compressor.task.contract import Task


_ARTIFACT: Facts[Artifact] = Facts(Artifact)
ORIGINAL = "original"
"""Name of the original's files, without their endings."""
_SLACK = 1024
"""Bytes by which two files of as many weights may differ, in names and nodes."""


@dataclass(frozen=True)
class Exported:
    """An exported file and what it was made of."""

    artifact: Artifact
    model: nn.Module
    task: Task
    torch_score: Score
    baseline: int
    """Index of the file that it is compared with; its own for an original."""
    group: int
    """Index of the first of the files that belong together; its own if the whole model is one file."""
    module: str
    """The module that it holds, as the task names it; empty: the whole model."""
    programs: bool = False
    """Whether programs that run it are wanted."""


@dataclass(frozen=True)
class _Made:
    """A file, and the module and the task that it was made of."""

    artifact: Artifact
    module: str
    model: nn.Module
    task: Task


@dataclass(frozen=True)
class _Source:
    """What files are made of: a model, or its modules, with their tasks."""

    parts: Sequence[tuple[str, nn.Module, Task]]
    shared: dict[tuple[Any, ...], Any] | None
    """What their exports share."""


def _source(run: Setting, model: nn.Module, task: Task) -> _Source:
    parts = tasks_of_files(task, copy.deepcopy(model).cpu().eval(), run.task.submodules)
    return _Source(parts, {} if len(run.recipe.exports) > 1 else None)


def export_originals(run: Setting, original: nn.Module, score: Score) -> tuple[list[Exported], list[int]]:
    """The original in every format and form of the recipe, and for each export which of them it is compared with.

    If a format cannot hold the original, that is compared in ONNX Runtime instead, and a note says so.
    """
    source = _source(run, original, run.task)
    exported: list[Exported] = []
    places: dict[tuple[str, str], int] = {}
    for options in originals(run.recipe.exports):
        try:
            made = _export_original(run, source, options)
        except ExportError as error:
            other = options.fallback()
            if other.kind == options.kind:
                raise
            run.notes.append(
                f"The original is not exported as `{options.format}` ({error.message.splitlines()[0]}); files of "
                f"that format are compared with the original as `{other.format}` in ONNX Runtime."
            )
            run.progress.say(run.notes[-1])
            if other.kind in places:
                places[options.kind] = places[other.kind]
                continue
            made = _export(run, source, other, ORIGINAL)
            places[other.kind] = len(exported)
        group = len(exported)
        places.setdefault(options.kind, group)
        for index, one in enumerate(made, start=group):
            task = fixed(one.task, options.fixed_shapes)
            exported.append(Exported(one.artifact, one.model, task, score, index, group, one.module))
    return exported, [places[options.kind] for options in run.recipe.exports]


def export_compressed(
    run: Setting, model: nn.Module, task: Task, originals: Sequence[Exported], baselines: Sequence[int], score: Score
) -> tuple[list[Exported], list[Skip]]:
    """Every export of the recipe, and those that were refused.

    Args:
        run: The run.
        model: The compressed model.
        task: Of the compressed model.
        originals: The exported original, in each format.
        baselines: For each export the index of the original that it is compared with, or of its first module.
        score: Metric of the compressed model; what it lost is not left for rounding.

    Raises:
        ExportError: All exports failed, or the only one, also because its file is larger than the original's.
    """
    source = _source(run, model, task)
    exported: list[Exported] = []
    refused = []
    original = originals[0].torch_score
    spent = (original.value - score.value) * (1.0 if original.higher_is_better else -1.0)
    for options, baseline in zip(run.recipe.exports, baselines, strict=True):
        try:
            allowed = run.recipe.limits.largest_drop(original.value)
            left = None if allowed is None else allowed - max(0.0, spent)
            made = _smaller(run, source, options, left, originals[baseline:])
        except ExportError as error:
            if len(run.recipe.exports) == 1:
                raise
            refused.append(_refused(run, options, error))
            continue
        group = len(originals) + len(exported)
        for place, one in enumerate(made):
            own = fixed(one.task, options.fixed_shapes)
            programs = options.has_programs
            exported.append(
                Exported(one.artifact, one.model, own, score, baseline + place, group, one.module, programs)
            )
    if not exported:
        raise ExportError(
            "all exports failed:\n" + "\n".join(f"  {skip.name}: {skip.reason}" for skip in refused),
            hint="`compressor runtimes list` shows what is installed; the reasons name what runs instead",
        )
    return exported, refused


def _smaller(
    run: Setting, source: _Source, options: ExportOptions, left: float | None, originals: Sequence[Exported]
) -> list[_Made]:
    """An export whose files are not larger than the original's; if one is, or cannot be made, all are removed."""
    staging = run.folder.staging
    there = set(staging.iterdir())
    try:
        made = _export(run, source, options, options.name, left)
        for one, original in zip(made, originals, strict=False):
            if not options.may_be_larger:
                _refuse_larger(original.artifact, one.artifact)
    except ExportError:
        for path in set(staging.iterdir()) - there:
            path.unlink()
        raise
    return made


def _refuse_larger(original: Artifact, artifact: Artifact) -> None:
    """Raise `ExportError` if a file, or its step file, is larger than the original's in the same format."""
    for before, after in ((original, artifact), (original.step, artifact.step)):
        if before is None or after is None or before.format != after.format:
            continue
        if after.bytes > before.bytes + _SLACK:
            raise ExportError(
                f"{after.path} has {after.bytes:,} bytes, more than the {before.bytes:,} of the original",
                hint="compress the model further, leave `precision` out, or accept it with `may_be_larger: true`",
            )


def _export_original(run: Setting, source: _Source, options: ExportOptions) -> list[_Made]:
    """As the compressed model will be; without a step file if only a step of the recipe makes streaming possible."""
    try:
        return _export(run, source, options, ORIGINAL)
    except ExportError as error:
        if not options.streams or not any(step.may_stream for step in run.recipe.steps):
            raise
        made = _export(run, source, options.whole(), ORIGINAL)
        run.notes.append(f"The original has no step file: {error.message}.")
        return made


def _export(run: Setting, source: _Source, options: ExportOptions, stem: str, left: float | None = None) -> list[_Made]:
    """The file, or that of each module.

    `left` is what rounding may cost of the metric, in equal parts if there are several files; None: no limit.
    """
    made = []
    for module, part, own in source.parts:
        path = run.folder.staging / options.file_name(stem_of(stem, module))
        job = Job(
            part,
            own,
            path,
            options,
            seed=run.recipe.seed,
            progress=run.progress,
            real=given(own, run.real),
            metric_drop=None if left is None else left / len(source.parts),
            shared=source.shared,
        )
        artifact = _known_or_written(run, job, stem)
        made.append(_Made(artifact, module, part, own))
    return made


def _known_or_written(run: Setting, job: Job[Any], stem: str) -> Artifact:
    """The file of a job; an original's from an earlier run, if there is one of everything that is the same."""
    name, journal = job.path.name, run.journal
    kept = run.originals if stem == ORIGINAL and job.options.is_kept else None
    if kept is None or journal.has(name):
        return _part(run, job)
    entry = kept.entry(name, repr(job.options), repr(job.model))
    if kept.take(entry, name, journal):
        run.progress.say(f"{name} is that of an earlier run of the same model; --no-cache exports it again")
        return _part(run, job).model_copy(update={"seconds": 0.0})
    artifact = _part(run, job)
    kept.keep(entry, name, journal, [job.path.parent / file for file in artifact.files])
    return artifact


def _part(run: Setting, job: Job[Any]) -> Artifact:
    """The file of a job, from the journal if it is there."""
    return run.journal.part(job.path.name, _ARTIFACT, partial(_written, job), files=lambda artifact: artifact.files)


def _written(job: Job[Any]) -> Artifact:
    job.progress.say(f"exporting {job.path.name}")
    return export(job)


def _refused(run: Setting, options: ExportOptions, error: ExportError) -> Skip:
    """An export that failed; it is said at once, and the others go on."""
    refused = refusal(options.file_name(), error)
    run.progress.say(f"{refused.name} is refused: {refused.reason}")
    return refused


def refusal(name: str, error: ExportError) -> Skip:
    """Why there is no file of this name, on one line, with the remedy."""
    remedy = f" ({error.hint})" if error.hint else ""
    return Skip(name=name, reason=f"{' '.join(error.message.split())}{remedy}")


def refuse_same_names(exports: Sequence[ExportOptions], modules: Iterable[str]) -> None:
    """Raise `UsageError` if two files of the run would have one name, given the modules that become files."""
    name = name_of_two_files(exports, [stem_of("", module) for module in modules] or [""])
    if name is not None:
        raise UsageError(
            f"two files of the run would be called `{name}`", hint="give the export another `name` in the recipe"
        )
