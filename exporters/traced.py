"""What the exporters share whose converters read PyTorch programs: tracing here, conversion in another environment.

Here the model is traced, and the program saved: the user's code stays in this process. There the program is converted,
and quantized where that is asked for; the float file that comes first has to agree with PyTorch before the quantized
one is looked at.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from compressor.errors import ExportError, ParityError
from compressor.report import TensorInfo
from compressor.runtimes import environments
from exporters.phone import Candidate, ConvertedOptions, agreement, deliver, describe, workshop

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn

    from compressor.export import Job
    from compressor.report import Artifact, StreamInfo
    from compressor.runtimes.runtime_file import Worker
    from compressor.task.contract import Task

_SCRIPTS = Path(__file__).with_name("converters")
_FLOAT = "float32"
_ERRORS = {"int8": 0.05, "int4": 0.2}
"""How far a quantized output may be off, in parts of the largest output: above, something else went wrong."""
_SMALLER = 0.95
"""A quantized file that is not even this much of the float file has nothing quantized in it."""


class TracedOptions(ConvertedOptions):
    """Options of formats that are converted from a PyTorch program."""

    precision: Literal["float32", "int8", "int4"] = "float32"
    """Of the weights of linear layers and recurrent cells; int8 and int4 compute their products in 8 bits."""
    unroll: int = Field(default=64, ge=0, le=100_000)
    """Most recurrent cells that a whole sequence may be written out as: positions x layers x directions. Each takes the
    converter about a second."""
    quantized_error: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """How far a quantized output may be off, in parts of the largest output; by default 0.05 for int8, 0.2 for int4."""

    @model_validator(mode="after")
    def _error_of_quantized_files_only(self) -> TracedOptions:
        if self.quantized_error is not None and self.precision == _FLOAT:
            raise ValueError("`quantized_error` is an option of `precision: int8` and `int4`")
        return self

    @property
    def compresses(self) -> bool:
        """Whether weights are stored in fewer bits than float32 has."""
        return self.precision != _FLOAT

    def unrounded(self) -> Self:
        """The same in float32."""
        return self.model_copy(update={"precision": _FLOAT, "quantized_error": None})


@dataclass(frozen=True)
class Traced:
    """A traced model and what its file will be."""

    program: torch.export.ExportedProgram
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    open_axes: tuple[dict[int, tuple[int, int]], ...] = ()
    """For each input: axis -> smallest and largest size."""
    stream: StreamInfo | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format and how it is made."""

    name: str
    """As `format` in a recipe, of its converter and its runtime."""
    title: str
    open_length: bool
    """Whether a file may take sequences of any length."""


def export(form: Format, job: Job[TracedOptions]) -> Artifact:
    """Trace, convert, check and deliver; see `exporters.litert.export`."""
    import torch

    from exporters import onnx

    environments.need(form.name)
    task, options = job.task, job.options
    path = job.path.with_suffix(f".{options.ending}")
    job = replace(job, path=path)
    with (
        workshop(path) as folder,
        torch.random.fork_rng(devices=[]),
        job.progress.bar(f"export {path.name}", total=3) as bar,
    ):
        torch.manual_seed(job.seed)
        own = onnx._private_copy(job.model)
        traced = _step(own, task, options, form) if options.form == "step" else _sequence(own, task, options, form)
        bar.advance(note=f"convert in {form.title}")
        made, operators = _convert(form, traced, folder, path, options)
        bar.advance(note="compare with PyTorch")
        candidates = [_candidate(form, traced, file, operators) for file in made]
        artifact = _checked(candidates, job)
        bar.advance(note="done")
    return artifact


# --- tracing ---


def _step(model: nn.Module, task: Task, options: TracedOptions, form: Format) -> Traced:
    from exporters.capture import plain_program
    from exporters.stepping import graph

    planned = graph.plan(model, task, options)
    growing = [spec.name for spec in planned.survey.states if spec.growing_axis is not None]
    if growing:
        raise ExportError(
            f"state `{growing[0]}` grows with every position, and {form.title} files are written with states of one "
            "size",
            hint="attention turned into `method: aaren` has such states; whole sequences are written with "
            "`form: sequence` and `length`; `format: onnx` and `ort` take states that grow",
        )
    step = graph.traceable(copy.deepcopy(model), planned, task, chunk=options.chunk)
    program = plain_program.capture(step.module, step.arguments, step.inputs, {})
    return Traced(
        program,
        inputs=_infos(step.inputs, step.arguments),
        outputs=_infos(step.outputs, _results(program, step.arguments)),
        open_axes=({},) * len(step.arguments),
        stream=step.info,
    )


def _sequence(model: nn.Module, task: Task, options: TracedOptions, form: Format) -> Traced:
    from exporters import onnx
    from exporters.capture import plain_program
    from exporters.phone import _refuse_other_length

    length = options.length if options.length is not None else task.length
    _refuse_other_length(task, length)
    given = task.example(1, length)
    onnx._refuse_unfit_outputs(model, given, task)
    cells = plain_program.recurrent_cells(model, given)
    if cells > options.unroll:
        raise ExportError(
            f"{form.title} has no recurrent layers for PyTorch's, so a sequence of {length} positions would be written "
            f"out as {cells} cells, and `unroll` allows {options.unroll}",
            hint="`form: step` writes each layer's cell once and takes sequences of any length; or set a smaller "
            "`length`, or a larger `unroll`, if you have the time",
        )
    bounds: dict[str, tuple[int, int]] = {}
    notes = []
    if form.open_length and options.length is None and not cells and task.min_length < task.max_length:
        bounds = {"time": (task.min_length, task.max_length)}
    axes = _open_axes(task, bounds)
    try:
        program = plain_program.capture(model, given, axes, bounds)
    except ExportError as error:
        if not bounds:
            raise
        notes.append(f"One length, {length}: with any length, {error.message.splitlines()[0]}")
        bounds, axes = {}, _open_axes(task, {})
        program = plain_program.capture(model, given, axes, bounds)
    results = {
        name: {axis: word for axis, word in words.items() if word in bounds} for name, words in task.outputs.items()
    }
    return Traced(
        program,
        inputs=_infos(axes, given),
        outputs=_infos(results, _results(program, given)),
        open_axes=tuple({axis: bounds[word] for axis, word in words.items()} for words in axes.values()),
        notes=tuple(notes),
    )


def _open_axes(task: Task, bounds: dict[str, tuple[int, int]]) -> dict[str, dict[int, str]]:
    return {name: {axis: word for axis, word in axes.items() if word in bounds} for name, axes in task.inputs.items()}


def _results(program: torch.export.ExportedProgram, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    import torch

    with torch.no_grad():
        results = program.module(check_guards=False)(*given)
    return (results,) if isinstance(results, torch.Tensor) else tuple(results)


def _infos(axes: dict[str, dict[int, str]], values: Sequence[Tensor]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=name,
            dtype=str(value.dtype).removeprefix("torch."),
            shape=tuple(words.get(axis, size) for axis, size in enumerate(value.shape)),
        )
        for (name, words), value in zip(axes.items(), values, strict=True)
    )


# --- conversion ---


def _convert(
    form: Format, traced: Traced, folder: Path, path: Path, options: TracedOptions
) -> tuple[list[Path], dict[str, int]]:
    """The float file and, where asked for, the quantized one, last; and the operators of the last one."""
    import torch

    quantized = options.precision != _FLOAT
    places = {"float": folder / "float", "final": folder / "final"}
    for place in places.values():
        place.mkdir()
    target = (places["float"] if quantized else places["final"]) / path.name
    request: dict[str, Any] = {
        "program": str(folder / "program.pt2"),
        "target": str(target),
        "precision": options.precision,
        "quantized": str(places["final"] / path.name),
        "shapes": [[[axis, *sizes] for axis, sizes in axes.items()] for axes in traced.open_axes],
    }
    torch.export.save(traced.program, request["program"])
    hint = "`format: onnx` and `ort` have every operator; `seconds` is the time limit"
    answer, _ = _converter(form).ask("convert", seconds=options.seconds, hint=hint, **request)
    made = [target, Path(request["quantized"])] if quantized else [target]
    return made, {str(name): int(count) for name, count in answer["operators"].items()}


_converters: dict[str, Worker] = {}
"""Converters that run: most of a conversion's time goes into importing one."""


def _converter(form: Format) -> Worker:
    from compressor.runtimes.runtime_file import Worker

    running = _converters.get(form.name)
    if running is None or not running.alive:
        running = Worker(form.name, f"the converter of {form.title}", module=_SCRIPTS / f"{form.name}.py")
        _converters[form.name] = running
    return running


def _candidate(form: Format, traced: Traced, file: Path, operators: dict[str, int]) -> Candidate:
    from compressor.runtimes.steps import METADATA_KEY

    metadata = {} if traced.stream is None else {METADATA_KEY: traced.stream.model_dump_json()}
    beside = describe(file, form.name, form.name, traced.inputs, traced.outputs, metadata=metadata)
    return Candidate(
        file, form.name, extras={beside: "inputs, outputs and states"}, operators=operators, notes=traced.notes
    )


# --- agreement ---


def _checked(candidates: Sequence[Candidate], job: Job[TracedOptions]) -> Artifact:
    """The last candidate, delivered; where it is quantized, the float file before it had to agree with PyTorch."""
    final = candidates[-1]
    if len(candidates) == 1:
        return deliver(final, job)
    from compressor.measure import parity
    from exporters import onnx

    task, options = job.task, job.options
    reference = onnx._private_copy(job.model)
    before, after = (candidate.path.stat().st_size for candidate in candidates)
    if after > _SMALLER * before:
        raise ExportError(
            f"`precision: {options.precision}` leaves {job.path.name} at {after} bytes, of {before} in float32: the "
            "model has no linear layer or recurrent cell that could be quantized",
            hint="use `precision: float32`",
        )
    found, runtime = agreement(reference, candidates[0].path, task, options, job.seed)
    if not found.passed:
        raise ParityError(
            f"the float32 file, before it is quantized, disagrees with PyTorch in {runtime} "
            f"(atol {found.atol:g}, rtol {found.rtol:g}):\n" + parity.table(found),
            hint="where every point is close, raise atol and rtol",
        )
    part = options.quantized_error or _ERRORS[options.precision]
    scale = _largest_output(reference, task, options)
    loose = options.model_copy(update={"atol": part * scale, "rtol": 0.0})
    worst = max(point.max_absolute for point in found.points)
    note = (
        f"{options.precision}: weights have a scale for each output, activations that of the moment. In float32 the "
        f"file has {before} bytes and agrees with PyTorch to {worst:.2g}; quantized "
        f"it may be off by {part:g} of the largest output, {scale:.3g}, and the metric has the last word."
    )
    candidate = Candidate(
        final.path, final.format, extras=final.extras, operators=final.operators, notes=(*final.notes, note)
    )
    try:
        return deliver(candidate, replace(job, options=loose))
    except ParityError as error:
        error.hint = "the float32 file agrees: raise `quantized_error`, or use a finer `precision`"
        raise


def _largest_output(model: nn.Module, task: Task, options: TracedOptions) -> float:
    import torch

    from exporters.capture.program import plain_attention

    with torch.random.fork_rng(devices=[]), torch.no_grad(), plain_attention():
        torch.manual_seed(0)
        results = model(*task.example(2, options.length or task.length))
    flat = (results,) if isinstance(results, torch.Tensor) else results
    return max(float(part.abs().max()) for part in flat if part.is_floating_point())
