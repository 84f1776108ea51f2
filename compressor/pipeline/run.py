"""One run: compress a task's model by a recipe, export, check, measure, report."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import os
import platform
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor import __version__, checkpoint
from compressor.errors import CompressorError, ExportError, MethodError, TaskError, UsageError
from compressor.measure import accuracy, latency, macs, memory, size
from compressor.methods.base import Context, Method, State
from compressor.pipeline.folder import REPORT_FILE, RunFolder
from compressor.probing import comparison
from compressor.probing.conversions import between
from compressor.progress import Progress, Silent
from compressor.recipe.choice import formats
from compressor.report import (
    Artifact,
    Beside,
    Environment,
    Latency,
    Limit,
    Measurement,
    Report,
    Score,
    Skip,
    SpeedUp,
    StepMeasurement,
    StepReport,
)
from compressor.runtimes.forward import open_forward
from compressor.runtimes.steps import Steps
from compressor.task.fixed_axes import dynamic, fixed
from compressor.task.narrowed_states import NarrowedStates
from compressor.task.view import has_validation_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.recipe.model import ExportOptions, Limits, Recipe
    from compressor.task.contract import Inputs, Task
    from compressor.task.guard import GuardedTask

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
        probes: Probe what a step puts in the place of another architecture (see `compressor.probing.comparison`);
            some minutes on one core, once for each pair of architectures, then read from the user's cache folder.
        jobs: Processes that do so; more than one needs a program whose main module can be imported.
        progress: Where progress is told.

    Raises:
        CompressorError: See `compressor.errors`; everything that the user can mend.
    """
    chosen = _device(device)
    with RunFolder(Path(out), recipe.sha256(), quick=quick, force=force) as folder, torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return _Run(recipe, task, folder, chosen, threads, quick, probes, jobs, progress).carry_out()


_ROUNDING = frozenset(
    {
        "precision",
        "float_io",
        "quantized_error",
        "quantize_for",
        "keep_float",
        "calibration_samples",
        "max_error",
        "block",
        "activations",
        "calibration",
        "per_channel",
    }
)
"""Options of exporters that make a file less exact."""


@dataclass(frozen=True)
class _Exported:
    """An exported file and what it was made of."""

    artifact: Artifact
    model: nn.Module
    task: Task
    torch_score: Score
    baseline: int
    """Index of the file that it is compared with; its own for an original."""


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
                step.check_task(original, self.task)
        # Before the steps: what cannot be exported need not be retrained first.
        exported, baselines = self._export_originals(original, original_score)
        first = len(exported)
        state, steps = self._compress(original)
        narrowed = NarrowedStates(self.task, state.structure)
        score = (steps[-1].score if steps else None) or original_score
        checkpoint.save(self.folder.staging, state.model, state.structure)
        with self.folder.keeping(checkpoint.WEIGHTS_FILE, checkpoint.RECORD_FILE):
            refused = []
            for options, baseline in zip(self.recipe.exports, baselines, strict=True):
                try:
                    artifact = self._export(state.model, narrowed, options, None, _lost(original_score, score))
                except ExportError as error:
                    if len(self.recipe.exports) == 1:
                        raise
                    refused.append(self._refused(options, error))
                    continue
                exported.append(_Exported(artifact, state.model, fixed(narrowed, _sizes(options)), score, baseline))
            if len(exported) == first:
                raise ExportError(
                    "no export is right:\n" + "\n".join(f"  {skip.name}: {skip.reason}" for skip in refused),
                    hint="`compressor runtimes list` shows what is installed; the reasons name what runs instead",
                )
            measurements, speedups = self._measure(exported)
        compressed = measurements[first:]
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
            elsewhere=tuple(measurements[1:first]),
            compressed=tuple(compressed),
            speedups=tuple(speedups[first:]),
            baselines=tuple(one.baseline for one in exported[first:]),
            refused=tuple(refused),
            limits=check_limits(
                self.recipe.limits,
                [measurements[one.baseline] for one in exported[first:]],
                compressed,
                speedups[first:],
            ),
            notes=self._notes(steps),
            environment=environment(self.device),
        )
        return self._write(report)

    # --- stages ----------------------------------------------------------------------------------------------------

    def _compress(self, original: nn.Module) -> tuple[State, list[StepReport]]:
        generator = torch.Generator().manual_seed(self.recipe.seed)
        context = Context(
            task=self.task,
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
            conversions, unprobed = (), (*comparison.unwanted(conversions), *unprobed)
        plan = comparison.PLANS["rehearsal" if self.quick else "standard"]
        jobs = 1 if self.quick else self.jobs
        found = [
            comparison.compare(conversion, plan, jobs=jobs, cache=not self.quick, progress=self.progress)
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
        self, model: nn.Module, task: Task, options: ExportOptions, stem: str | None, spent: float = 0.0
    ) -> Artifact:
        """One file; `spent` is what the steps cost of the metric, the rest of its limit is left for rounding."""
        exporter = importlib.import_module(f"exporters.{options.format}")
        more, limit = {}, self.recipe.limits.metric_drop
        chooses = "metric_drop" in inspect.signature(exporter.export).parameters  # what to leave in float
        if chooses and limit is not None and getattr(options, "precision", None) in ("int8", "int4"):
            more["metric_drop"] = limit - max(0.0, spent)
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
        return artifact

    def _export_originals(self, original: nn.Module, score: Score) -> tuple[list[_Exported], list[int]]:
        """The original in every format and form of the recipe, and for each export which of them it is compared with.

        Where a format cannot hold the original, that is compared in ONNX Runtime instead, and a note says so.
        """
        found: list[_Exported] = []
        places: dict[tuple[str, str], int] = {}
        for options in _for_originals(self.recipe.exports):
            key = _kind(options)
            try:
                artifact = self._export_original(original, options)
            except ExportError as error:
                other = _in_onnx_runtime(options)
                if _kind(other) == key:
                    raise
                self.notes.append(
                    f"The original is not exported as `{options.format}` ({error.message.splitlines()[0]}); files of "
                    f"that format are compared with the original as `{other.format}` in ONNX Runtime."
                )
                self.progress.say(self.notes[-1])
                if _kind(other) in places:
                    places[key] = places[_kind(other)]
                    continue
                artifact = self._export(original, self.task, other, "original")
                places[_kind(other)] = len(found)
            places.setdefault(key, len(found))
            found.append(_Exported(artifact, original, fixed(self.task, _sizes(options)), score, len(found)))
        return found, [places[_kind(options)] for options in self.recipe.exports]

    def _export_original(self, original: nn.Module, options: ExportOptions) -> Artifact:
        """As the compressed model will be; without a step file where only a step of the recipe makes steps possible."""
        try:
            return self._export(original, self.task, options, "original")
        except ExportError as error:
            if not getattr(options, "stream", False) or not any(step.may_stream for step in self.recipe.steps):
                raise
            whole = options.model_copy(update={"stream": False})  # type: ignore[attr-defined]
            artifact = self._export(original, self.task, whole, "original")
            self.notes.append(f"There is no step file of the original: {error.message}.")
            return artifact

    def _refused(self, options: ExportOptions, error: ExportError) -> Skip:
        """An export that did not work out, told at once: the others go on."""
        name = _file_name(options, None)
        remedy = f" ({error.hint})" if error.hint else ""
        self.progress.say(f"{name} is refused: {error.message}{remedy}")
        return Skip(name=name, reason=f"{' '.join(error.message.split())}{remedy}")

    def _measure(self, exported: Sequence[_Exported]) -> tuple[list[Measurement], list[SpeedUp | None]]:
        """Everything about every file, and how much faster each is than its original (none for an original)."""
        paths = [self.folder.staging / one.artifact.path for one in exported]
        inputs = [one.task.example(1, one.task.length) for one in exported]
        examined = []
        for path, one in zip(paths, exported, strict=True):
            self.progress.say(f"evaluating {path.name}")
            with closing(open_forward(path, dynamic(one.task))) as forward:
                examined.append(accuracy.examine(one.task, forward, seed=self.recipe.seed))
                index = len(examined) - 1
                if isinstance(forward, Steps):
                    past = max(0, self.task.length - forward.info.chunk)
                    inputs[index] = tuple(forward.one_step(inputs[index], past=past))
                else:
                    inputs[index] = forward.one_call(inputs[index])
        whole = [index for index, one in enumerate(exported) if one.artifact.stream is None]
        stepping = [index for index, one in enumerate(exported) if one.artifact.stream is not None]
        timed = {**self._time(whole, paths, inputs, exported), **self._time(stepping, paths, inputs, exported)}
        steps = self._measure_steps(exported, inputs)
        measurements = []
        for index, (path, one) in enumerate(zip(paths, exported, strict=True)):
            parameters, nonzeros = size.count(one.model)
            measurements.append(
                Measurement(
                    label="compressed" if one.baseline != index else "original",
                    artifact=one.artifact,
                    parameters=parameters,
                    nonzeros=nonzeros,
                    macs=self._macs(path, inputs[index]),
                    peak_memory_bytes=memory.peak(path, inputs[index]),
                    latency=timed[index][0],
                    score=examined[index].score,
                    drop=accuracy.drop(examined[one.baseline], examined[index]) if one.baseline != index else None,
                    torch_score=one.torch_score,
                    layers=size.layers(one.model),
                    step=steps.get(index),
                )
            )
        return measurements, [timed[index][1] for index in range(len(exported))]

    def _time(
        self, chosen: Sequence[int], paths: Sequence[Path], inputs: Sequence[Inputs], exported: Sequence[_Exported]
    ) -> dict[int, tuple[Latency, SpeedUp | None]]:
        """Latency and speed-up of some of the files by their index, all of them interleaved."""
        if not chosen:
            return {}
        streams = {index: exported[index].artifact.stream for index in chosen}
        lengths = {
            index: exported[index].task.length if stream is None else stream.chunk for index, stream in streams.items()
        }
        baselines = [chosen.index(exported[index].baseline) for index in chosen]
        latencies, speedups = latency.compare(
            [paths[index] for index in chosen],
            [inputs[index] for index in chosen],
            baselines=baselines,
            batch=1,
            length=self.task.length,
            threads=self.threads,
            seed=self.recipe.seed,
            progress=self.progress,
            max_seconds=latency.MAX_SECONDS * len({exported[index].artifact.format for index in chosen}),
            **self._rounds,
        )
        ratios, found = iter(speedups), {}
        for index, taken in zip(chosen, latencies, strict=True):
            baseline = exported[index].baseline
            ratio = next(ratios) if baseline != index else None
            same = lengths[index] == lengths[baseline]
            found[index] = taken.model_copy(update={"length": lengths[index]}), ratio if same else None
        return found

    def _measure_steps(self, exported: Sequence[_Exported], inputs: Sequence[Inputs]) -> dict[int, StepMeasurement]:
        """Index of an artifact -> what was measured on its step file, compared with the original's where it has one."""
        found = {index: one.artifact.step for index, one in enumerate(exported) if one.artifact.step is not None}
        if not found:
            return {}
        paths = {index: self.folder.staging / step.path for index, step in found.items()}
        files, examined = {index: Steps(path) for index, path in paths.items()}, {}
        for index, path in paths.items():
            self.progress.say(f"evaluating {path.name} step by step")
            examined[index] = accuracy.examine(exported[index].task, files[index], seed=self.recipe.seed)
        chunks = {index: file.info.chunk for index, file in files.items()}
        past = max(0, self.task.length - max(chunks.values()))
        given = {index: file.one_step(inputs[index], past=past) for index, file in files.items()}
        order = list(paths)  # one without a step file of the original to compare with stands for itself
        baselines = {index: exported[index].baseline if exported[index].baseline in paths else index for index in paths}
        latencies, speedups = latency.compare(
            list(paths.values()),
            list(given.values()),
            baselines=[order.index(baselines[index]) for index in order],
            batch=1,
            length=chunks[order[0]],
            threads=self.threads,
            seed=self.recipe.seed,
            progress=self.progress,
            **self._rounds,
        )
        ratios = iter(speedups)
        measured = {}
        for (index, path), timed in zip(paths.items(), latencies, strict=True):
            baseline = baselines[index]
            ratio = next(ratios) if baseline != index else None
            measured[index] = StepMeasurement(
                macs=self._macs(path, given[index]),
                peak_memory_bytes=memory.peak(path, given[index]),
                latency=timed.model_copy(update={"length": chunks[index]}),
                past=past,
                score=examined[index].score,
                drop=accuracy.drop(examined[baseline], examined[index]) if baseline != index else None,
                speedup=ratio if chunks[index] == chunks[baseline] else None,
            )
        return measured

    @property
    def _rounds(self) -> dict[str, int]:
        """How often a rehearsal times each file; the usual number otherwise."""
        return {"rounds": QUICK_ROUNDS} if self.quick else {}

    def _macs(self, path: Path, inputs: Sequence[Tensor]) -> int | None:
        """MACs of one run of an ONNX file, none of another; a note where they cannot be counted."""
        if path.suffix != ".onnx":
            return None
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
        self.folder.write("report.md", markdown.page(report))
        self.folder.write("report.html", html.page(report))
        self.folder.write(REPORT_FILE, report.to_json())
        self.folder.commit()
        return report

    # --- small parts -----------------------------------------------------------------------------------------------

    def _score(self, model: nn.Module) -> Score:
        return accuracy.score(self.task, accuracy.torch_forward(model, self.device), seed=self.recipe.seed)

    def _notes(self, steps: Sequence[StepReport]) -> tuple[str, ...]:
        notes = list(self.notes)
        stops_early = any(step.options.get("early_stopping") or step.options.get("keep_best") for step in steps)
        if stops_early and not has_validation_data(self.task):
            notes.append(
                "The task has no `validate`: epochs were chosen on the evaluation data, so the metric after "
                "retraining is slightly optimistic."
            )
        if self.quick:
            notes.append("A rehearsal (`--quick`): training and timing were cut short; the numbers mean little.")
        return tuple(notes)


def try_forward(task: GuardedTask, model: nn.Module, device: torch.device) -> None:
    """Find out before any work that the model runs on the task's own example; raises `TaskError` where it does not."""
    example = task.example(2, task.length)
    try:
        accuracy.torch_forward(model, device)(*example)
    except Exception as error:
        shapes = ", ".join(str(tuple(part.shape)) for part in example)
        raise TaskError(
            f"the model does not run on `example(2, {task.length})` of shapes {shapes}: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            hint="`example(batch, length)` must give the arguments of the model's `forward`",
        ) from error


def check_limits(
    limits: Limits,
    originals: Sequence[Measurement],
    compressed: Sequence[Measurement],
    speedups: Sequence[SpeedUp | None],
) -> tuple[Limit, ...]:
    """Every limit of the recipe against every exported file, each beside its original, step files included."""
    checked: list[Limit] = []
    for original, measurement, speedup in zip(originals, compressed, speedups, strict=True):
        sign = 1.0 if original.score.higher_is_better else -1.0
        reached = {
            "metric_drop": sign * (original.score.value - measurement.score.value),
            "parameters_ratio": original.parameters / measurement.parameters,
            "file_ratio": original.artifact.bytes / measurement.artifact.bytes,
            "file_bytes": float(measurement.artifact.bytes),
            "speedup": speedup.ratio if speedup else math.nan,
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


def _kind(options: ExportOptions) -> tuple[str, str]:
    """Files of one kind can be compared: format, and whether a whole sequence is run at once or a step."""
    return options.format, getattr(options, "form", "sequence")


def _file_name(options: ExportOptions, stem: str | None) -> str:
    step = ".step" if _kind(options)[1] == "step" else ""
    return f"{stem or getattr(options, 'name', 'model')}{step}.{getattr(options, 'ending', options.format)}"


def _sizes(options: ExportOptions) -> Mapping[str, int]:
    """Name of an axis -> the size that the file fixes it to."""
    sizes: Mapping[str, int] = getattr(options, "shapes", {})
    return sizes


def _for_originals(exports: Sequence[ExportOptions]) -> list[ExportOptions]:
    """How the original is exported: of every kind as the first export that streams, or else the first.

    Formats of ONNX Runtime come first: other files may have to be compared with these.
    """
    kinds: dict[tuple[str, str], list[ExportOptions]] = {}
    for options in sorted(exports, key=lambda options: options.format not in ("onnx", "ort")):
        kinds.setdefault(_kind(options), []).append(options)
    return [
        _unquantized(next((options for options in same if getattr(options, "stream", False)), same[0]))
        for same in kinds.values()
    ]


def _unquantized(options: ExportOptions) -> ExportOptions:
    """The same in float32: the original stays what it is, so that the report shows what a lower precision wins."""
    chosen: Any = options
    fields = type(chosen).model_fields
    kept = {name: getattr(chosen, name) for name in fields if name not in _ROUNDING}
    original: ExportOptions = type(chosen).model_validate(kept)
    return original


def _in_onnx_runtime(options: ExportOptions) -> ExportOptions:
    """How the original is exported where the wanted format cannot hold it: in ONNX Runtime, whole or as a step."""
    if _kind(options)[1] == "step":
        return formats()["ort"].model_validate({"form": "step", "chunk": getattr(options, "chunk", 1)})  # type: ignore[return-value]
    return formats()["onnx"].model_validate({})  # type: ignore[return-value]


def _lost(before: Score, after: Score) -> float:
    return (before.value - after.value) * (1.0 if before.higher_is_better else -1.0)


def _refuse_same_names(exports: Sequence[ExportOptions]) -> None:
    names = []
    originals = [(options, "original") for options in _for_originals(exports)]
    for options, stem in [*originals, *((options, None) for options in exports)]:
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
