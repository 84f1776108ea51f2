"""From a model with Python loops over time to a traced program of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import CompressorError, ExportError
from exporters.capture import program as torch_capture
from exporters.loops.detection import steps_by_length
from exporters.loops.refusal import NotRolledError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir
    import torch
    from torch import Tensor, nn

    from compressor.task.contract import Task
    from exporters.capture.halting import LoopBody
    from exporters.loops.scan import StepBody
    from exporters.loops.step_module import StepModule

    TracedAlone = StepModule | LoopBody
    Axes = Mapping[str, Mapping[int, str]]

_LENGTHS = (6, 8)
"""Lengths of the two traces, where the task allows them."""
_FEWEST = 4
"""The shortest length at which three iterations are seen, though the first one may be another."""
_BATCH = 3
_HINT = (
    "every step must do the same but for its number (docs/concepts/loops.md lists what is rolled up); use nn.RNN, "
    "nn.GRU or nn.LSTM, or leave the axis out of the task's `inputs`"
)


@dataclass(frozen=True)
class Captured:
    """A traced program, in which placeholders stand for the loops of `bodies`."""

    program: torch.export.ExportedProgram
    bodies: Sequence[StepBody] = ()


class _UntracedError(Exception):
    """There are no two lengths to trace at, or a trace fails at them: a loop over time is not the reason."""


def has_cells(program: torch.export.ExportedProgram) -> bool:
    """Whether a traced model has recurrent cells, which may stand in a loop."""
    from exporters.loops.kinds import CELLS

    return any(node.target in CELLS for node in program.graph.nodes)


def capture(model: nn.Module, task: Task, inputs: Sequence[Tensor], axes: Axes) -> Captured:
    """Trace a model at an open length; Python loops over time are rolled up.

    Args:
        model: In evaluation mode, on the CPU, prepared for native nodes.
        task: Gives examples at two lengths, and says what its axes are.
        inputs: An example with all open axes at least 2 long.
        axes: Input name -> {axis: name} of the axes that are open in the file.

    Raises:
        ExportError: The model cannot be traced, or its loops cannot be written for any length; the message says why.
    """
    lengths = _lengths(task)
    reason: Exception | None = None
    if lengths is not None and steps_by_length(model, task, lengths):  # no trace at an open length will succeed
        try:
            return _rolled(model, task, inputs, axes)
        except (NotRolledError, _UntracedError) as refusal:
            reason = refusal
    try:
        return Captured(torch_capture.capture(model, inputs, axes))
    except ExportError as failure:
        error = failure
    if reason is None:
        try:
            return _rolled(model, task, inputs, axes)
        except (NotRolledError, _UntracedError) as refusal:
            reason = refusal
    raise (refused(error, reason) if isinstance(reason, NotRolledError) else error) from reason


def capture_rolled(model: nn.Module, task: Task, inputs: Sequence[Tensor], axes: Axes) -> Captured | None:
    """Trace a model with its loops over time rolled up; None if it has none that can be.

    Args:
        model: See `capture`.
        task: See `capture`.
        inputs: An example, at least two steps long.
        axes: Input name -> {axis: name} of the axes that are open in the file, not that of time.
    """
    try:
        return _rolled(model, task, inputs, axes)
    except (NotRolledError, _UntracedError):
        return None


def _rolled(model: nn.Module, task: Task, inputs: Sequence[Tensor], axes: Axes) -> Captured:
    from exporters.loops.graph import Graph
    from exporters.loops.rolled import Rolled
    from exporters.loops.unify import unify

    lengths = _lengths(task)
    if lengths is None or not any("time" in words.values() for words in task.inputs.values()):
        raise _UntracedError
    fixed = {
        name: {axis: word for axis, word in words.items() if word != "time"} for name, words in task.inputs.items()
    }
    graphs = [Graph(_at_length(model, task, length, fixed), length) for length in lengths]
    try:
        rolled = Rolled(model, unify(*graphs), task.inputs, task.min_length).eval()
        return Captured(torch_capture.capture(rolled, inputs, axes), rolled.bodies)
    except ExportError as error:
        if isinstance(error.__cause__, NotRolledError):
            raise error.__cause__ from error
        raise NotRolledError(error.message, error.hint) from error


def _at_length(model: nn.Module, task: Task, length: int, axes: Axes) -> torch.export.ExportedProgram:
    """The trace at one length."""
    try:
        return torch_capture.capture(model, task.example(_BATCH, length), axes)
    except ExportError as error:
        raise _UntracedError from error


def refused(error: ExportError, reason: NotRolledError) -> ExportError:
    """The refusal of a model with both reasons."""
    return ExportError(
        f"{error.message}, and its loops cannot be rolled up: {reason.reason}", hint=reason.hint or _HINT
    )


def _lengths(task: Task) -> tuple[int, int] | None:
    """Two lengths to trace at, or None if the task has none that show a loop."""
    first = max(task.min_length, min(_LENGTHS[0], task.max_length - 1))
    second = min(task.max_length, first + _LENGTHS[1] - _LENGTHS[0])
    return (first, second) if second > first >= _FEWEST else None


def translate_body(body: StepBody, opset: int) -> onnx_ir.Model:
    """The graph of one iteration.

    Raises:
        ExportError: It cannot be traced or written.
    """
    from exporters.loops.step_module import StepModule

    return translate_module(StepModule(body).eval(), opset, "one step of a loop over time")


def translate_module(module: TracedAlone, opset: int, title: str) -> onnx_ir.Model:
    """The graph of a module that has examples of its inputs and their open axes.

    Raises:
        ExportError: It cannot be traced or written; the message begins with `title`.
    """
    from onnxscript import optimizer

    try:
        program = torch_capture.capture(module, module.inputs, module.axes)
        graph = torch_capture.translate(program, opset)
    except CompressorError as error:
        raise ExportError(f"{title} cannot be written: {error.message}", hint=error.hint) from error
    limit = 2**62
    with torch_capture.quiet():
        optimizer.optimize_ir(graph, input_size_limit=limit, output_size_limit=limit)
    return graph
