"""Measures exported files: metric, size, MACs, memory and latency, each beside its original."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from compressor.errors import ExportError, OutputError
from compressor.files import sha256
from compressor.measure import accuracy, by_layer, latency, macs, memory, size
from compressor.pipeline.evaluation_form import EvaluationForm
from compressor.pipeline.parts import Facts
from compressor.report import Latency, LayerCost, LayerSparsity, Measurement, SpeedUp, StepMeasurement
from compressor.runtimes.forward import Fixed, open_forward
from compressor.runtimes.steps import Steps
from compressor.task.fixed_axes import dynamic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

    from compressor.measure.accuracy import Examined
    from compressor.measure.macs import MacCount
    from compressor.pipeline.exporting import Exported
    from compressor.pipeline.setting import Setting
    from compressor.report import Artifact
    from compressor.task.contract import Inputs, Task


QUICK_ROUNDS = 8
_TIMES: Facts[dict[int, tuple[Latency, SpeedUp | None]]] = Facts(dict[int, tuple[Latency, SpeedUp | None]])
_STEPS: Facts[dict[int, StepMeasurement]] = Facts(dict[int, StepMeasurement])
_PEAKS: Facts[list[int | None]] = Facts(list[int | None])


def measure(run: Setting, exported: Sequence[Exported]) -> tuple[list[Measurement], list[SpeedUp | None]]:
    """Everything about every file, and how much faster each is than its original (none for an original)."""
    paths = [run.folder.staging / one.artifact.path for one in exported]
    ensure_unchanged(run.folder.staging, [one.artifact for one in exported])
    examined: dict[int, Examined] = {}
    calls: dict[int, Inputs] = {}
    for group in _groups(exported):
        score, own = _evaluated(run, [paths[index] for index in group], [exported[index].task for index in group])
        examined |= dict.fromkeys(group, score)
        calls |= zip(group, own, strict=True)
    inputs = [calls[index] for index in range(len(exported))]
    whole = [index for index, one in enumerate(exported) if one.artifact.stream is None]
    stepping = [index for index, one in enumerate(exported) if one.artifact.stream is not None]
    timed = run.journal.part("times", _TIMES, lambda: _time(run, whole, paths, inputs, exported))
    of_steps = run.journal.part("times of step files", _TIMES, lambda: _time(run, stepping, paths, inputs, exported))
    timed |= of_steps
    steps = run.journal.part("measurements of step files", _STEPS, lambda: _measure_steps(run, exported, inputs))
    peaks = run.journal.part("memory", _PEAKS, lambda: [memory.peak(*one) for one in zip(paths, inputs, strict=True)])
    measurements = []
    for index, (path, one) in enumerate(zip(paths, exported, strict=True)):
        parameters, nonzeros = size.count(one.model)
        layers, counted = size.layers(one.model), _macs(run, path, inputs[index])
        measurements.append(
            Measurement(
                label="compressed" if one.baseline != index else "original",
                module=one.module,
                artifact=one.artifact,
                parameters=parameters,
                nonzeros=nonzeros,
                macs=counted.total if counted else None,
                peak_memory_bytes=peaks[index],
                latency=timed[index][0],
                score=examined[index].score,
                drop=accuracy.drop(examined[one.baseline], examined[index]) if one.baseline != index else None,
                torch_score=one.torch_score,
                layers=layers,
                costs=_costs(run, path, inputs[index], layers, counted) if counted else (),
                step=steps.get(index),
            )
        )
    return measurements, [timed[index][1] for index in range(len(exported))]


def _evaluated(run: Setting, paths: Sequence[Path], tasks: Sequence[Task]) -> tuple[Examined, list[Inputs]]:
    names = ", ".join(path.name for path in paths)

    def made() -> tuple[Examined, list[Inputs]]:
        run.progress.say(f"evaluating {names}")
        return evaluate(paths, tasks, seed=run.recipe.seed)

    return run.journal.part(f"metric of {names}", EvaluationForm(), made)


def evaluate(
    paths: Sequence[Path], tasks: Sequence[Task], *, seed: int, validation: bool = False
) -> tuple[Examined, list[Inputs]]:
    """The metric of files that belong together, and what one call of each is given when it is timed.

    Args:
        paths: One file, or those of a model's modules.
        tasks: Of the files, their fixed sizes included.
        seed: Of the interval.
        validation: By the task's `validate`.
    """
    with ExitStack() as opened:
        forwards = [
            opened.enter_context(closing(open_forward(path, dynamic(task))))
            for path, task in zip(paths, tasks, strict=True)
        ]
        return accuracy.examine_files(tasks, forwards, validation=validation, seed=seed), [
            _one_call(forward, task) for forward, task in zip(forwards, tasks, strict=True)
        ]


def _one_call(forward: Steps | Fixed, task: Task) -> Inputs:
    """The inputs of one call of a file: a sample of the task's length, or the step that ends it."""
    example = task.example(1, task.length)
    if isinstance(forward, Steps):
        return tuple(forward.one_step(example, past=max(0, dynamic(task).length - forward.info.chunk)))
    return forward.one_call(example)


def _groups(exported: Sequence[Exported]) -> list[list[int]]:
    """Indexes of files that belong together: those of the modules of one model."""
    groups: dict[int, list[int]] = {}
    for index, one in enumerate(exported):
        groups.setdefault(one.group, []).append(index)
    return list(groups.values())


def ensure_unchanged(folder: Path, artifacts: Iterable[Artifact]) -> None:
    """Raise `OutputError` if a file is gone, or not the one that was exported: no number is about another file."""
    files = [file for artifact in artifacts for file in (artifact, artifact.step) if file is not None]
    known = {part.path: part.sha256 for file in files for part in file.parts}
    known |= {file.path: file.sha256 for file in files}
    for name, content in known.items():
        if sha256(folder / name) != content:
            raise OutputError(
                f"{name} was changed after it was exported", hint="let nothing else write there, and run again"
            )


def _time(
    run: Setting, chosen: Sequence[int], paths: Sequence[Path], inputs: Sequence[Inputs], exported: Sequence[Exported]
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
        length=run.task.length,
        threads=run.threads,
        seed=run.recipe.seed,
        progress=run.progress,
        max_seconds=latency.MAX_SECONDS * len({exported[index].artifact.format for index in chosen}),
        **_rounds(run),
    )
    ratios, timed = iter(speedups), {}
    for index, measured in zip(chosen, latencies, strict=True):
        baseline = exported[index].baseline
        ratio = next(ratios) if baseline != index else None
        same = lengths[index] == lengths[baseline]
        timed[index] = measured.model_copy(update={"length": lengths[index]}), ratio if same else None
    return timed


def _measure_steps(run: Setting, exported: Sequence[Exported], inputs: Sequence[Inputs]) -> dict[int, StepMeasurement]:
    """Index of an artifact -> what was measured on its step file, compared with the original's if it has one."""
    artifacts = {index: one.artifact.step for index, one in enumerate(exported)}
    paths = {index: run.folder.staging / step.path for index, step in artifacts.items() if step is not None}
    if not paths:
        return {}
    files, examined = {index: Steps(path) for index, path in paths.items()}, {}
    for index, path in paths.items():
        run.progress.say(f"evaluating {path.name} step by step")
        examined[index] = accuracy.examine(exported[index].task, files[index], seed=run.recipe.seed)
    chunks = {index: file.info.chunk for index, file in files.items()}
    past = max(0, run.task.length - max(chunks.values()))
    steps = {index: file.one_step(inputs[index], past=past) for index, file in files.items()}
    order = list(paths)  # one without a step file of the original to compare with is its own baseline
    baselines = {index: exported[index].baseline if exported[index].baseline in paths else index for index in paths}
    latencies, speedups = latency.compare(
        list(paths.values()),
        list(steps.values()),
        baselines=[order.index(baselines[index]) for index in order],
        batch=1,
        length=chunks[order[0]],
        threads=run.threads,
        seed=run.recipe.seed,
        progress=run.progress,
        **_rounds(run),
    )
    ratios = iter(speedups)
    measured = {}
    for (index, path), timed in zip(paths.items(), latencies, strict=True):
        baseline = baselines[index]
        ratio = next(ratios) if baseline != index else None
        measured[index] = StepMeasurement(
            macs=counted.total if (counted := _macs(run, path, steps[index])) else None,
            peak_memory_bytes=memory.peak(path, steps[index]),
            latency=timed.model_copy(update={"length": chunks[index]}),
            past=past,
            score=examined[index].score,
            drop=accuracy.drop(examined[baseline], examined[index]) if baseline != index else None,
            speedup=ratio if chunks[index] == chunks[baseline] else None,
        )
    return measured


def _rounds(run: Setting) -> dict[str, int]:
    """How often a rehearsal times each file; the usual number otherwise."""
    return {"rounds": QUICK_ROUNDS} if run.quick else {}


def _macs(run: Setting, path: Path, inputs: Sequence[Tensor]) -> MacCount | None:
    """MACs of one run of an ONNX file, none of another; a note if they cannot be counted."""
    if path.suffix != ".onnx":
        return None
    counted = macs.survey(path, inputs)
    if counted.uncounted:
        missing = ", ".join(counted.uncounted)
        run.notes.append(f"MACs of {path.name} are unknown: {missing} cannot be counted.")
    return counted


def _costs(
    run: Setting, path: Path, inputs: Sequence[Tensor], layers: Sequence[LayerSparsity], counted: MacCount
) -> tuple[LayerCost, ...]:
    """What each layer takes of an ONNX file; a note if its nodes cannot be timed."""
    try:
        return by_layer.costs(path, inputs, layers, counted, threads=run.threads)
    except ExportError as error:
        run.notes.append(f"What each layer takes of {path.name} is unknown: {error.message}.")
        return ()
