"""One run: compress a task's model by a recipe, export, check, measure, report."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compressor import checkpoint
from compressor.errors import CompressorError
from compressor.files.staged import LOG_FILE, REPORT_FILE
from compressor.methods.base import NO_HELPERS
from compressor.methods.order import refuse_order
from compressor.methods.retrain import Retrain
from compressor.pipeline import programs
from compressor.pipeline.axes import open_axes
from compressor.pipeline.compressing import compress, in_step
from compressor.pipeline.continuing import begin, conditions
from compressor.pipeline.dry_run import try_out
from compressor.pipeline.environment import environment, find_device
from compressor.pipeline.exporting import export_compressed, export_originals, refuse_same_names
from compressor.pipeline.folder import RunFolder
from compressor.pipeline.kept_originals import KeptOriginals
from compressor.pipeline.limits import check_limits, judged
from compressor.pipeline.measuring import ensure_unchanged, measure
from compressor.pipeline.parts import Facts
from compressor.pipeline.setting import Setting
from compressor.progress import Logged, Progress, Silent
from compressor.report import Report, Score, StepReport
from compressor.runtimes.resources import check_threads
from compressor.task.files_read import noting_files
from compressor.task.narrowed_states import NarrowedStates
from compressor.task.random_state import seeded_everywhere
from compressor.task.submodules import paths_of
from compressor.task.view import has_validation_data
from compressor.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from compressor.methods.base import Helpers
    from compressor.pipeline.exporting import Exported
    from compressor.recipe.model import Recipe
    from compressor.task.guard import GuardedTask

_SILENT = Silent()
_SCORE: Facts[Score] = Facts(Score)
_WRITTEN = ("recipe.yaml", "report.md", "report.html", REPORT_FILE, LOG_FILE)
QUICK_SAMPLES = 32
"""Of an evaluation in a rehearsal, if the task's `evaluate` takes a `limit`."""


def run(
    recipe: Recipe,
    task: GuardedTask,
    out: str | Path,
    *,
    device: str = "auto",
    threads: int = 1,
    quick: bool = False,
    force: bool = False,
    probes: bool = True,
    jobs: int = 1,
    restart: bool = False,
    cache: bool = False,
    command: tuple[str, ...] = (),
    progress: Progress = _SILENT,
    team: Helpers = NO_HELPERS,
) -> Report:
    """Carry a recipe out on a task and write the run directory `out`.

    The directory receives `report.json`, `report.md`, `report.html`, the exported files of the original and of the
    compressed model, the compressed weights with the record from which `compressor.load` rebuilds the model, and
    `run.log`; all of them or none. A run that fails or is killed leaves an older run in it as it was, and what it has
    finished in `out/unfinished`: the same call goes on from there, and ends with the same files.

    Args:
        recipe: How to compress.
        task: The model, its data and its metric.
        out: The run directory; made if it is missing.
        device: `cpu`, an accelerator that PyTorch knows (`cuda`, `mps`, `xpu`), or `auto`: the machine's accelerator,
            or the CPU if it has none.
        threads: Threads of ONNX Runtime in the latency measurement.
        quick: A rehearsal on a handful of batches.
        force: Replace another recipe's run in `out`.
        probes: Probe an architecture that replaces another one (see `compressor.probing.comparison`);
            some minutes on one core, once for each pair of architectures, then read from the user's cache folder.
        jobs: Processes that do so; more than one needs a program whose main module can be imported.
        restart: Begin anew if there is an unfinished run in `out`.
        cache: Take the exported original of an earlier run, if everything that it follows from is the same, and keep it
            for the next one (see `compressor.pipeline.kept_originals`).
        command: Words of the command that a person would repeat; the report shows them.
        progress: Told what begins.
        team: Processes that share the work of trainings; this one leads (see `compressor.pipeline.processes`).

    Raises:
        MethodError: A training of the recipe cannot be shared by so many processes.
        OutputError: Another run is at work in `out`; or `out` holds a run of another recipe, or an unfinished run under
            other conditions (recipe, code, data, weights, versions).
        CompressorError: See `compressor.errors`; invalid input.
    """
    chosen = find_device(device)
    check_threads(threads)
    for index, step in enumerate(recipe.steps):
        if isinstance(step, Retrain):
            with in_step(index, step):
                step.check_team(team.size)
    with (
        RunFolder(Path(out), recipe, chosen, quick=quick, force=force) as folder,
        torch.random.fork_rng(),
        seeded_everywhere(recipe.seed),
        _rehearsed(task) if quick else nullcontext(),
    ):
        torch.manual_seed(recipe.seed)
        logged = Logged(progress, folder.staging / LOG_FILE)
        setting = Setting(recipe, task, folder, chosen, threads, quick, probes, jobs, logged, command, team)
        with _told(logged, folder):
            return _carry_out(setting, restart, cache=cache)


@contextmanager
def _told(log: Logged, folder: RunFolder) -> Iterator[None]:
    """The log says how a run ended, and whoever interrupted it what is kept."""
    log.note(f"compressor {VERSION}, process {os.getpid()}")
    try:
        yield
    except BaseException as error:
        log.note(f"stopped: {error.message if isinstance(error, CompressorError) else type(error).__name__}")
        if not isinstance(error, Exception) and not folder.journal.is_empty:
            log.say(folder.kept())
        raise


@contextmanager
def _rehearsed(task: GuardedTask) -> Iterator[None]:
    """Let the task evaluate on a slice, and take sequences of at most twice its typical length, for a while."""
    limit, longest = task.limit, task.max_length
    task.limit, task.max_length = QUICK_SAMPLES, min(longest, 2 * task.length)
    try:
        yield
    finally:
        task.limit, task.max_length = limit, longest


def _carry_out(run: Setting, restart: bool, *, cache: bool) -> Report:
    """All stages in order; the report is written last."""
    recipe, task = run.recipe, run.task
    refuse_same_names(recipe.exports, paths_of(task.task.modules))
    with run.stage("loading and trying the task"):
        original = task.model().to(run.device).eval()
        run.progress.say("trying the task")
        with noting_files(task.opened):
            needs_loss = any(step.needs_loss for step in recipe.steps)
            run.real = try_out(task, original, run.device, trains=bool(recipe.steps), needs_loss=needs_loss)
        run.notes += task.notes
        given = conditions(run, original)
        begin(run, given, restart=restart)
        run.originals = KeptOriginals(given, recipe.seed, run.device) if cache else None
    with run.stage("evaluating the original"):
        original_score = run.journal.part("metric of the original", _SCORE, lambda: _first_score(run, original))
    for index, step in enumerate(recipe.steps):
        with in_step(index, step):
            step.check_task(original, task)
    refuse_order(recipe.steps, original, task)
    with run.stage("exporting the original"):  # before the steps: what cannot be exported need not be retrained first
        originals, baselines = export_originals(run, original, original_score)
    first = len(originals)
    state, steps = compress(run, original)
    score = (steps[-1].score if steps else None) or original_score
    checkpoint.save(run.folder.staging, state.model, state.structure)
    narrowed = NarrowedStates(task, state.structure)
    with run.stage("exporting the compressed model"):
        exported, refused = export_compressed(run, state.model, narrowed, originals, baselines, score)
    with run.stage("measuring the files"):
        measurements, speedups = measure(run, [*originals, *exported])
    files = _programs(run, exported)
    compressed, speedups = measurements[first:], speedups[first:]
    compared = [measurements[one.baseline] for one in exported]
    report = Report(
        name=recipe.name,
        description=recipe.description,
        task=task.name,
        remark=task.remark,
        seed=recipe.seed,
        quick=run.quick,
        command=run.command,
        recipe=recipe.resolved(),
        recipe_sha256=recipe.sha256(),
        original=measurements[0],
        steps=tuple(steps),
        elsewhere=tuple(measurements[1:first]),
        compressed=tuple(compressed),
        speedups=tuple(speedups),
        baselines=tuple(one.baseline for one in exported),
        refused=tuple(refused),
        limits=check_limits(judged(recipe.limits, quick=run.quick), compared, compressed, speedups),
        notes=_notes(run, steps),
        axes=open_axes(task),
        environment=environment(run.device),
        conditions=given,
        stages=tuple(run.stages),
    )
    return _write(run.folder, report, files)


def _programs(run: Setting, exported: Sequence[Exported]) -> list[str]:
    """The names of the programs that run the compressed files."""
    wanted = [(one.artifact, one.task) for one in exported if one.programs and not run.quick]
    names, notes = programs.write(run.folder.staging, wanted, seed=run.recipe.seed)
    run.notes += notes
    return names


def _first_score(run: Setting, original: nn.Module) -> Score:
    run.progress.say("evaluating the original model")
    return run.score(original)


def _write(folder: RunFolder, report: Report, more: Sequence[str]) -> Report:
    """The report and its views, then everything into place; `more` are names of what was written beside."""
    from compressor.plain_yaml import dump
    from compressor.render import html, markdown

    measured = (report.original, *report.elsewhere, *report.compressed)
    ensure_unchanged(folder.staging, [measurement.artifact for measurement in measured])
    folder.write("recipe.yaml", dump(report.recipe))
    made = {name for measurement in measured for name in measurement.artifact.files}
    names = sorted({*made, checkpoint.WEIGHTS_FILE, checkpoint.RECORD_FILE, *_WRITTEN, *more})
    report = report.model_copy(update={"files": tuple(names)})
    folder.write("report.md", markdown.page(report))
    folder.write("report.html", html.page(report))
    folder.write(REPORT_FILE, report.to_json())
    folder.commit(names)
    return report


def _notes(run: Setting, steps: Sequence[StepReport]) -> tuple[str, ...]:
    """What the stages noted, and what the reader must know of all numbers."""
    notes = list(run.notes)
    stops_early = any(step.options.get("early_stopping") or step.options.get("keep_best") for step in steps)
    if stops_early and not has_validation_data(run.task):
        notes.append(
            "The task has no `validate`: epochs were chosen on the evaluation data, so the metric after "
            "retraining is slightly optimistic."
        )
    if run.quick:
        notes.append("A rehearsal (`--quick`): training and timing were cut short; the numbers mean little.")
    return tuple(notes)
