"""The program of a model that a converter in another environment reads: the user's code stays in this process."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.report import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn

    from compressor.report import StreamInfo
    from compressor.task.contract import Task
    from exporters.options import ProgramOptions


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


def trace(model: nn.Module, task: Task, options: ProgramOptions, form: Format) -> Traced:
    """The traced program of the form that `options` ask for; raises `ExportError` if the model has none."""
    from exporters.capture.halting import refuse_halting

    refuse_halting(model, form.title)
    return (_step if options.is_step else _sequence)(model, task, options, form)


def _step(model: nn.Module, task: Task, options: ProgramOptions, form: Format) -> Traced:
    from exporters.capture import plain_program
    from exporters.stepping.find import find_plan
    from exporters.stepping.module import traceable

    planned = find_plan(model, task, chunk=options.chunk)
    growing = [spec.name for spec in planned.survey.states if spec.growing_axis is not None]
    if growing:
        raise ExportError(
            f"state `{growing[0]}` grows with every position, and {form.title} files are written with states of one "
            "size",
            hint="attention turned into `method: aaren` has such states; whole sequences are written with "
            "`form: sequence` and `length`; `format: onnx` and `ort` take states that grow",
        )
    step = traceable(copy.deepcopy(model), planned, task, chunk=options.chunk)
    program = plain_program.capture(step.module, step.arguments, step.inputs, {})
    return Traced(
        program,
        inputs=_infos(step.inputs, step.arguments),
        outputs=_infos(step.outputs, _results(program, step.arguments)),
        open_axes=({},) * len(step.arguments),
        stream=step.info,
    )


def _sequence(model: nn.Module, task: Task, options: ProgramOptions, form: Format) -> Traced:
    from exporters.capture import plain_program
    from exporters.prepare import check_length, check_outputs

    length = options.length if options.length is not None else task.length
    check_length(task, length)
    example = task.example(1, length)
    check_outputs(model, example, task)
    cells = plain_program.recurrent_cells(model, example)
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
        program = plain_program.capture(model, example, axes, bounds)
    except ExportError as error:
        if not bounds:
            raise
        notes.append(f"One length, {length}: with any length, {error.message.splitlines()[0]}")
        bounds, axes = {}, _open_axes(task, {})
        program = plain_program.capture(model, example, axes, bounds)
    results = {
        name: {axis: word for axis, word in words.items() if word in bounds} for name, words in task.outputs.items()
    }
    return Traced(
        program,
        inputs=_infos(axes, example),
        outputs=_infos(results, _results(program, example)),
        open_axes=tuple({axis: bounds[word] for axis, word in words.items()} for words in axes.values()),
        notes=tuple(notes),
    )


def _open_axes(task: Task, bounds: dict[str, tuple[int, int]]) -> dict[str, dict[int, str]]:
    return {name: {axis: word for axis, word in axes.items() if word in bounds} for name, axes in task.inputs.items()}


def _results(program: torch.export.ExportedProgram, example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    import torch

    with torch.no_grad():
        results = program.module(check_guards=False)(*example)
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
