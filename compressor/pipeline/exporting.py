"""Exports the original and the compressed model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import ExportError, UsageError
from compressor.formats import Job, export
from compressor.report import Skip
from compressor.task.fixed_axes import fixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from compressor.formats import ExportOptions
    from compressor.pipeline.setting import Setting
    from compressor.report import Artifact, Score
    from compressor.task.contract import Task


@dataclass(frozen=True)
class Exported:
    """An exported file and what it was made of."""

    artifact: Artifact
    model: nn.Module
    task: Task
    torch_score: Score
    baseline: int
    """Index of the file that it is compared with; its own for an original."""


def export_originals(run: Setting, original: nn.Module, score: Score) -> tuple[list[Exported], list[int]]:
    """The original in every format and form of the recipe, and for each export which of them it is compared with.

    If a format cannot hold the original, that is compared in ONNX Runtime instead, and a note says so.
    """
    exported: list[Exported] = []
    places: dict[tuple[str, str], int] = {}
    for options in originals(run.recipe.exports):
        try:
            artifact = _export_original(run, original, options)
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
            artifact = _export(run, original, run.task, other, "original")
            places[other.kind] = len(exported)
        places.setdefault(options.kind, len(exported))
        exported.append(Exported(artifact, original, fixed(run.task, options.fixed_shapes), score, len(exported)))
    return exported, [places[options.kind] for options in run.recipe.exports]


def export_compressed(
    run: Setting, model: nn.Module, task: Task, baselines: Sequence[int], original: Score, score: Score
) -> tuple[list[Exported], list[Skip]]:
    """Every export of the recipe, and those that were refused.

    Args:
        run: The run.
        model: The compressed model.
        task: Of the compressed model.
        baselines: For each export the index of the original that it is compared with.
        original: Metric of the original.
        score: Metric of the compressed model; what it lost is not left for rounding.

    Raises:
        ExportError: All exports failed.
    """
    exported: list[Exported] = []
    refused = []
    spent = (original.value - score.value) * (1.0 if original.higher_is_better else -1.0)
    for options, baseline in zip(run.recipe.exports, baselines, strict=True):
        try:
            artifact = _export(run, model, task, options, None, spent)
        except ExportError as error:
            if len(run.recipe.exports) == 1:
                raise
            refused.append(_refused(run, options, error))
            continue
        exported.append(Exported(artifact, model, fixed(task, options.fixed_shapes), score, baseline))
    if not exported:
        raise ExportError(
            "all exports failed:\n" + "\n".join(f"  {skip.name}: {skip.reason}" for skip in refused),
            hint="`compressor runtimes list` shows what is installed; the reasons name what runs instead",
        )
    return exported, refused


def _export_original(run: Setting, original: nn.Module, options: ExportOptions) -> Artifact:
    """As the compressed model will be; without a step file if only a step of the recipe makes streaming possible."""
    try:
        return _export(run, original, run.task, options, "original")
    except ExportError as error:
        if not options.streams or not any(step.may_stream for step in run.recipe.steps):
            raise
        artifact = _export(run, original, run.task, options.whole(), "original")
        run.notes.append(f"The original has no step file: {error.message}.")
        return artifact


def _export(
    run: Setting, model: nn.Module, task: Task, options: ExportOptions, stem: str | None, spent: float = 0.0
) -> Artifact:
    """One file; `spent` is what the steps cost of the metric, the rest of its limit is left for rounding."""
    limit = run.recipe.limits.metric_drop
    path = run.folder.staging / options.file_name(stem)
    run.progress.say(f"exporting {path.name}")
    return export(
        Job(
            copy.deepcopy(model).cpu().eval(),
            task,
            path,
            options,
            seed=run.recipe.seed,
            progress=run.progress,
            metric_drop=None if limit is None else limit - max(0.0, spent),
        )
    )


def _refused(run: Setting, options: ExportOptions, error: ExportError) -> Skip:
    """An export that failed; it is said at once, and the others go on."""
    refused = refusal(options.file_name(), error)
    run.progress.say(f"{refused.name} is refused: {refused.reason}")
    return refused


def refusal(name: str, error: ExportError) -> Skip:
    """Why there is no file of this name, on one line, with the remedy."""
    remedy = f" ({error.hint})" if error.hint else ""
    return Skip(name=name, reason=f"{' '.join(error.message.split())}{remedy}")


def originals(exports: Sequence[ExportOptions]) -> list[ExportOptions]:
    """How the original is exported: of every kind as the first export that streams, or else the first.

    Formats of ONNX Runtime come first: other files may have to be compared with these.
    """
    kinds: dict[tuple[str, str], list[ExportOptions]] = {}
    for options in sorted(exports, key=lambda options: not options.in_onnx_runtime):
        kinds.setdefault(options.kind, []).append(options)
    return [next((options for options in same if options.streams), same[0]).unrounded() for same in kinds.values()]


def refuse_same_names(exports: Sequence[ExportOptions]) -> None:
    """Raise `UsageError` if two files of the run would have one name."""
    names = [name for options in originals(exports) for name in options.file_names("original")]
    names += [name for options in exports for name in options.file_names()]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two files of the run would be called `{name}`", hint="give the export another `name` in the recipe"
            )
