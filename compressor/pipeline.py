"""One run: compress a task's model by a recipe, export, check, measure, report."""

from __future__ import annotations

import copy
import importlib
import math
import os
import platform
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor import __version__, checkpoint, probe
from compressor.errors import CompressorError, MethodError, TaskError, UsageError
from compressor.measure import accuracy, latency, macs, memory, size
from compressor.measure.runtime import OnnxFile
from compressor.measure.steps import OnnxSteps
from compressor.methods.base import Context, Method, State
from compressor.nn.probe.conversions import between
from compressor.progress import Progress, Silent
from compressor.report import (
    Artifact,
    Beside,
    Environment,
    Limit,
    Measurement,
    Report,
    Score,
    SpeedUp,
    StepMeasurement,
    StepReport,
)
from compressor.rundir import REPORT_FILE, RunFolder
from compressor.task import NarrowedTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from compressor.recipe.model import ExportOptions, Limits, Recipe
    from compressor.task import GuardedTask, Inputs

QUICK_ROUNDS = 8
_PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy")
_SILENT = Silent()


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
    progress: Progress = _SILENT,
) -> Report:
    """Carry a recipe out on a task and write the run directory `out`.

    The directory receives `report.json` (last), `report.md`, `report.html`, the exported files of the original and of
    the compressed model, and the compressed weights with the record from which `compressor.load` rebuilds the model. A
    run that fails leaves an older run in it as it was.

    Args:
        recipe: How to compress.
        task: The model, its data and its metric.
        out: The run directory; made where it is missing.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.
        threads: Threads of ONNX Runtime in the latency measurement.
        quick: A rehearsal on a handful of batches.
        force: Replace another recipe's run in `out`.
        probes: Probe what a step puts in the place of another architecture (see `compressor.probe`); some minutes on
            one core, once for each pair of architectures, then read from the user's cache folder.
        jobs: Processes that do so; more than one needs a program whose main module can be imported.
        progress: Where progress is told.

    Raises:
        CompressorError: See `compressor.errors`; everything that the user can mend.
    """
    chosen = _device(device)
    with RunFolder(Path(out), recipe.sha256(), quick=quick, force=force) as folder, torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return _Run(recipe, task, folder, chosen, threads, quick, probes, jobs, progress).carry_out()


@dataclass
class _Run:
    """The parts of one run, so that its stages need not hand ten arguments around."""

    recipe: Recipe
    task: GuardedTask
    folder: RunFolder
    device: torch.device
    threads: int
    quick: bool
    probes: bool
    jobs: int
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def carry_out(self) -> Report:
        """All stages in order; the report is written last."""
        _refuse_same_names(self.recipe.exports)
        original = self.task.model().to(self.device).eval()
        try_forward(self.task, original, self.device)
        self.progress.say("evaluating the original model")
        original_score = self._score(original)
        for index, step in enumerate(self.recipe.steps):
            with _in_step(index, step):
                step.check_task(original, MethodTask(self.task))
        # Before the steps: what cannot be exported need not be retrained first.
        exported = [self._export(original, self.task, _for_original(self.recipe.exports), "original")]
        state, steps = self._compress(original)
        narrowed = NarrowedTask(self.task, state.structure)
        last = (steps[-1].score if steps else None) or original_score
        torch_scores = [original_score] + [last] * len(self.recipe.exports)
        models = [original] + [state.model] * len(self.recipe.exports)
        tasks = [self.task] + [narrowed] * len(self.recipe.exports)
        checkpoint.save(self.folder.staging, state.model, state.structure)
        with self.folder.keeping(checkpoint.WEIGHTS_FILE, checkpoint.RECORD_FILE):
            spent = _lost(original_score, torch_scores[-1])
            exported += [self._export(state.model, narrowed, options, None, spent) for options in self.recipe.exports]
            measurements, speedups = self._measure(exported, models, tasks, torch_scores)
        report = Report(
            name=self.recipe.name,
            description=self.recipe.description,
            task=self.task.name,
            seed=self.recipe.seed,
            quick=self.quick,
            recipe=self.recipe.resolved(),
            recipe_sha256=self.recipe.sha256(),
            original=measurements[0],
            steps=tuple(steps),
            compressed=tuple(measurements[1:]),
            speedups=tuple(speedups),
            limits=check_limits(self.recipe.limits, measurements[0], measurements[1:], speedups),
            notes=self._notes(steps),
            environment=environment(self.device),
        )
        return self._write(report)

    # --- stages ----------------------------------------------------------------------------------------------------

    def _compress(self, original: nn.Module) -> tuple[State, list[StepReport]]:
        generator = torch.Generator().manual_seed(self.recipe.seed)
        context = Context(
            task=MethodTask(self.task),
            original=original,
            device=self.device,
            generator=generator,
            progress=self.progress,
            quick=self.quick,
        )
        state = State(copy.deepcopy(original))
        steps = []
        befores = []
        for index, step in enumerate(self.recipe.steps):
            self.progress.say(f"step {index + 1} of {len(self.recipe.steps)}: {step.method}")
            befores.append((state, replace(context, generator=generator.clone_state())))
            started = time.perf_counter()
            with _in_step(index, step):
                result = step.apply(state, context)
                _check_result(result.state, result.changes, step)
            state = result.state
            parameters, nonzeros = size.count(state.model)
            steps.append(
                StepReport(
                    index=index,
                    method=step.method,
                    options=step.model_dump(mode="json", exclude={"method"}),
                    changes=result.changes,
                    skipped=result.skipped,
                    notes=result.notes,
                    history=result.history,
                    facts=dict(result.facts),
                    seconds=time.perf_counter() - started,
                    parameters=parameters,
                    nonzeros=nonzeros,
                    score=self._score(state.model),
                )
            )
        models = [*(before.model for before, _ in befores), state.model]
        learned = [self._probed(index, *pair) for index, pair in enumerate(pairwise(models))]
        besides = [self._beside(index, *before) for index, before in enumerate(befores)]
        return state, [
            step.model_copy(update={"beside": beside, **probed})
            for step, beside, probed in zip(steps, besides, learned, strict=True)
        ]

    def _probed(self, index: int, before: nn.Module, after: nn.Module) -> dict[str, Any]:
        """What the step report says of architectures that the step put in the place of others."""
        conversions, unprobed = between(before, after)
        if conversions and self.probes:
            self.progress.say(f"probing what step {index + 1} converts")
        elif conversions:
            conversions, unprobed = (), (*probe.unwanted(conversions), *unprobed)
        plan = probe.PLANS["rehearsal" if self.quick else "standard"]
        jobs = 1 if self.quick else self.jobs
        found = [
            probe.compare(conversion, plan, jobs=jobs, cache=not self.quick, progress=self.progress)
            for conversion in conversions
        ]
        return {"probes": tuple(found), "unprobed": unprobed}

    def _beside(self, index: int, before: State, context: Context) -> tuple[Beside, ...]:
        """The step's controls and, on each, the rest of the recipe, from the same random numbers on."""
        step = self.recipe.steps[index]
        found = []
        for name, control in step.controls().items():
            self.progress.say(f"beside step {index + 1}: {name}")
            own = replace(context, generator=context.generator.clone_state())
            try:
                with torch.random.fork_rng():
                    state = control(before, own).state
                    parameters, nonzeros = size.count(state.model)
                    score = self._score(state.model)
                    for later in self.recipe.steps[index + 1 :]:
                        state = later.apply(state, own).state
                    final = self._score(state.model)
            except CompressorError as error:
                found.append(Beside(name=name, note=error.message))
                continue
            found.append(Beside(name=name, parameters=parameters, nonzeros=nonzeros, score=score, final=final))
        return tuple(found)

    def _export(
        self, model: nn.Module, task: GuardedTask, options: ExportOptions, stem: str | None, spent: float = 0.0
    ) -> Artifact:
        """One file; `spent` is what the steps cost of the metric, the rest of its limit is left for rounding."""
        more = {}
        limit = self.recipe.limits.metric_drop
        if limit is not None and getattr(options, "precision", None) in ("int8", "int4"):
            more["metric_drop"] = limit - max(0.0, spent)
        exporter = importlib.import_module(f"exporters.{options.format}")
        path = self.folder.staging / _file_name(options, stem)
        self.progress.say(f"exporting {path.name}")
        artifact: Artifact = exporter.export(
            copy.deepcopy(model).cpu().eval(),
            task,
            path,
            options,
            progress=self.progress,
            seed=self.recipe.seed,
            **more,
        )
        return artifact.model_copy(update={"path": path.name})

    def _measure(
        self,
        artifacts: Sequence[Artifact],
        models: Sequence[nn.Module],
        tasks: Sequence[GuardedTask],
        torch_scores: Sequence[Score],
    ) -> tuple[list[Measurement], list[SpeedUp]]:
        paths = [self.folder.staging / artifact.path for artifact in artifacts]
        inputs = [task.example(1, task.length) for task in tasks]
        examined = []
        for path, task in zip(paths, tasks, strict=True):
            self.progress.say(f"evaluating {path.name}")
            examined.append(accuracy.examine(task, OnnxFile(path), seed=self.recipe.seed))
        latencies, speedups = latency.compare(
            paths,
            inputs,
            batch=1,
            length=self.task.length,
            threads=self.threads,
            seed=self.recipe.seed,
            progress=self.progress,
            **self._rounds,
        )
        steps = self._measure_steps(artifacts, inputs, tasks)
        measurements = []
        for index, (path, artifact, model) in enumerate(zip(paths, artifacts, models, strict=True)):
            parameters, nonzeros = size.count(model)
            measurements.append(
                Measurement(
                    label="compressed" if index else "original",
                    artifact=artifact,
                    parameters=parameters,
                    nonzeros=nonzeros,
                    macs=self._macs(path, inputs[index]),
                    peak_memory_bytes=memory.peak(path, inputs[index]),
                    latency=latencies[index],
                    score=examined[index].score,
                    drop=accuracy.drop(examined[0], examined[index]) if index else None,
                    torch_score=torch_scores[index],
                    layers=size.layers(model),
                    step=steps.get(index),
                )
            )
        return measurements, speedups

    def _measure_steps(
        self, artifacts: Sequence[Artifact], inputs: Sequence[Inputs], tasks: Sequence[GuardedTask]
    ) -> dict[int, StepMeasurement]:
        """Index of an artifact -> what was measured on its step file; where one has one, the original has one too."""
        found = {index: artifact.step for index, artifact in enumerate(artifacts) if artifact.step is not None}
        if not found:
            return {}
        paths = {index: self.folder.staging / step.path for index, step in found.items()}
        files, examined = {index: OnnxSteps(path) for index, path in paths.items()}, {}
        for index, path in paths.items():
            self.progress.say(f"evaluating {path.name} step by step")
            examined[index] = accuracy.examine(tasks[index], files[index], seed=self.recipe.seed)
        chunks = {index: file.info.chunk for index, file in files.items()}
        past = max(0, self.task.length - max(chunks.values()))
        given = {index: file.one_step(inputs[index], past=past) for index, file in files.items()}
        latencies, speedups = latency.compare(
            list(paths.values()),
            list(given.values()),
            batch=1,
            length=chunks[0],
            threads=self.threads,
            seed=self.recipe.seed,
            progress=self.progress,
            **self._rounds,
        )
        return {
            index: StepMeasurement(
                macs=self._macs(path, given[index]),
                peak_memory_bytes=memory.peak(path, given[index]),
                latency=timed.model_copy(update={"length": chunks[index]}),
                past=past,
                score=examined[index].score,
                drop=accuracy.drop(examined[0], examined[index]) if index else None,
                speedup=ratio if chunks[index] == chunks[0] else None,
            )
            for (index, path), timed, ratio in zip(paths.items(), latencies, [None, *speedups], strict=True)
        }

    @property
    def _rounds(self) -> dict[str, int]:
        """How often a rehearsal times each file; the usual number otherwise."""
        return {"rounds": QUICK_ROUNDS} if self.quick else {}

    def _macs(self, path: Path, inputs: Sequence[Tensor]) -> int | None:
        """MACs of one run of a file; a note where they cannot be counted."""
        counted = macs.survey(path, inputs)
        if counted.uncounted:
            missing = ", ".join(counted.uncounted)
            self.notes.append(f"MACs of {path.name} are not given: {missing} cannot be counted.")
        return counted.total

    def _write(self, report: Report) -> Report:
        """The views, then `report.json`, then everything into place."""
        from compressor.plain_yaml import dump
        from compressor.render import html, markdown

        self.folder.write("recipe.yaml", dump(report.recipe))
        names = sorted(
            {path.name for path in self.folder.staging.iterdir()} | {"report.md", "report.html", REPORT_FILE}
        )
        report = report.model_copy(update={"files": tuple(names)})
        self.folder.write("report.md", markdown(report))
        self.folder.write("report.html", html(report))
        self.folder.write(REPORT_FILE, report.to_json())
        self.folder.commit()
        return report

    # --- small parts -----------------------------------------------------------------------------------------------

    def _score(self, model: nn.Module) -> Score:
        return accuracy.score(self.task, torch_forward(model, self.device), seed=self.recipe.seed)

    def _notes(self, steps: Sequence[StepReport]) -> tuple[str, ...]:
        notes = list(self.notes)
        stops_early = any(step.options.get("early_stopping") or step.options.get("keep_best") for step in steps)
        if stops_early and self.task.validates_on_evaluation_data:
            notes.append(
                "The task has no `validate`: epochs were chosen on the evaluation data, so the metric after "
                "retraining is slightly optimistic."
            )
        if self.quick:
            notes.append("A rehearsal (`--quick`): training and timing were cut short; the numbers mean little.")
        return tuple(notes)


class MethodTask:
    """What methods see of a task; they cannot import `measure` themselves."""

    def __init__(self, task: GuardedTask) -> None:
        """For the user's task."""
        self.higher_is_better = task.higher_is_better
        self.length = task.length
        self.min_length = task.min_length
        self.attention = task.attention
        self.example = task.example
        self.batches = task.batches
        self.loss = task.loss
        self._task = task

    def validate_model(self, model: nn.Module, device: torch.device) -> Score:
        """The task's validation metric of a model."""
        return accuracy.score(self._task, torch_forward(model, device), validation=True)


def torch_forward(model: nn.Module, device: torch.device) -> Callable[..., Any]:
    """The model as `evaluate` calls it: evaluation mode, tensors on the CPU in and out, no gradients."""

    def forward(*inputs: Tensor) -> Any:
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                outputs = model(*(part.to(device) for part in inputs))
        finally:
            model.train(training)
        if isinstance(outputs, Tensor):
            return outputs.cpu()
        return tuple(part.cpu() for part in outputs)

    return forward


def try_forward(task: GuardedTask, model: nn.Module, device: torch.device) -> None:
    """Find out before any work that the model runs on the task's own example; raises `TaskError` where it does not."""
    example = task.example(2, task.length)
    try:
        torch_forward(model, device)(*example)
    except Exception as error:
        shapes = ", ".join(str(tuple(part.shape)) for part in example)
        raise TaskError(
            f"the model does not run on `example(2, {task.length})` of shapes {shapes}: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            hint="`example(batch, length)` must give the arguments of the model's `forward`",
        ) from error


def check_limits(
    limits: Limits, original: Measurement, compressed: Sequence[Measurement], speedups: Sequence[SpeedUp]
) -> tuple[Limit, ...]:
    """Every limit of the recipe against every exported file, step files included."""
    checked: list[Limit] = []
    for measurement, speedup in zip(compressed, speedups, strict=True):
        sign = 1.0 if original.score.higher_is_better else -1.0
        reached = {
            "metric_drop": sign * (original.score.value - measurement.score.value),
            "parameters_ratio": original.parameters / measurement.parameters,
            "file_ratio": original.artifact.bytes / measurement.artifact.bytes,
            "file_bytes": float(measurement.artifact.bytes),
            "speedup": speedup.ratio,
            "latency_ms": measurement.latency.p50 if measurement.latency else math.nan,
        }
        label = "" if len(compressed) == 1 else f"{measurement.artifact.path}: "
        checked += _against(limits, reached, label)
        ours, theirs = measurement.artifact.step, original.artifact.step
        if measurement.step is None or original.step is None or ours is None or theirs is None:
            continue
        step = measurement.step
        reached = {
            "metric_drop": sign * (original.step.score.value - step.score.value),
            "file_ratio": theirs.bytes / ours.bytes,
            "file_bytes": float(ours.bytes),
            "speedup": step.speedup.ratio if step.speedup else math.nan,
            "latency_ms": step.latency.p50 if step.latency else math.nan,
        }
        checked += _against(limits, reached, f"{ours.path}: ")
    return tuple(checked)


def _against(limits: Limits, reached: Mapping[str, float], label: str) -> Iterator[Limit]:
    """The limits that are set, of what was reached by one file; NaN where nothing was."""
    at_most = {"metric_drop", "file_bytes", "latency_ms"}
    for name, value in reached.items():
        limit = getattr(limits, name)
        if limit is None or math.isnan(value):
            continue
        # A drop of 0.01 in accuracies of 370 samples is 0.010000000000000009 in binary.
        margin = 1e-9
        met = value <= limit + margin if name in at_most else value >= limit - margin
        yield Limit(name=label + name, limit=float(limit), reached=value, met=met)


def environment(device: torch.device) -> Environment:
    """The machine and the versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Environment(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        compressor=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        device=name,
        versions={package: metadata.version(package) for package in _PACKAGES},
    )


def _file_name(options: ExportOptions, stem: str | None) -> str:
    return f"{stem or getattr(options, 'name', 'model')}.{options.format}"


def _for_original(exports: Sequence[ExportOptions]) -> ExportOptions:
    """How the original is exported: as the first export that streams, or else the first, but in float."""
    chosen: Any = next((options for options in exports if getattr(options, "stream", False)), exports[0])
    if getattr(chosen, "precision", "float32") == "float32":
        return chosen  # type: ignore[no-any-return]
    rounding = ("precision", "quantize_for", "keep_float", "calibration_samples", "max_error", "block")
    kept = {name: value for name, value in chosen.model_dump().items() if name not in rounding}
    return type(chosen).model_validate(kept)  # type: ignore[no-any-return]


def _lost(before: Score, after: Score) -> float:
    return (before.value - after.value) * (1.0 if before.higher_is_better else -1.0)


def _refuse_same_names(exports: Sequence[ExportOptions]) -> None:
    names = []
    for options, stem in [(_for_original(exports), "original"), *((options, None) for options in exports)]:
        path = Path(_file_name(options, stem))
        names.append(path.name)
        if getattr(options, "stream", False):
            names.append(f"{path.stem}.step{path.suffix}")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two files of the run would be called `{name}`", hint="give the export another `name` in the recipe"
            )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("there is no CUDA device", hint="use --device auto or cpu; `compressor doctor` tells more")
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"`{name}` is no device", hint="use auto, cpu or cuda")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextmanager
def _in_step(index: int, step: Method) -> Iterator[None]:
    """Put the step's number and method in front of what goes wrong in it."""
    try:
        yield
    except MethodError as error:
        label = f"`steps.{index}` ({step.method})"
        raise MethodError(f"{label}: {error.message}", hint=error.hint, place=error.place) from error


def _check_result(state: State, changes: Sequence[Any], step: Method) -> None:
    """A step that changed nothing, or broke a mask, does not pass."""
    if not changes:
        looked_at = [name for name, _ in state.model.named_parameters()]
        raise MethodError(
            f"it changed nothing; it looked at {', '.join(f'`{name}`' for name in looked_at[:8])}",
            hint="check `targets` and `ignore`",
        )
    parameters = dict(state.model.named_parameters(remove_duplicate=False))
    for name, mask in state.masks.items():
        if parameters[name].shape != mask.shape or bool(parameters[name].detach()[~mask].any()):
            raise CompressorError(f"`{step.method}` did not hold the mask of `{name}`; this is a bug of the tool")
    broken = [name for name, parameter in parameters.items() if not bool(parameter.isfinite().all())]
    if broken:
        raise MethodError(f"weights are not finite after it: {', '.join(broken[:5])}", hint="lower the learning rate")
