"""The graph of a model that takes whole sequences."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.surgery.trace.edges import starting_inputs
from exporters.onnx_files.precision import finish
from exporters.prepare import check_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from torch import Tensor, nn

    from compressor.progress import Bar
    from compressor.task.contract import Task
    from exporters.loops.capture import Captured
    from exporters.onnx_files.options import Options

    Axes = Mapping[str, Mapping[int, str]]


_BATCH = 3
"""Batch size while tracing; a size of 1 would be taken for a fixed axis."""

READ_KEY = "compressor.reads"
"""The entry of `metadata_props` that says, as JSON, what the file reads of an input that only starts a state."""


def graph(model: nn.Module, task: Task, options: Options, bar: Bar) -> onnx.ModelProto:
    """The checked graph of `model`, which gets buffers for the native nodes."""
    from exporters.capture import halting, native_recurrent
    from exporters.capture import program as torch_capture
    from exporters.loops.capture import translate_body
    from exporters.passes import naming, tidy
    from exporters.passes.weight_names import name_by_parameters

    native_recurrent.prepare(model)
    halting.prepare(model)
    length, axes = _tracing_length(task)
    inputs = task.example(_BATCH if length != _BATCH else _BATCH - 1, length)
    check_outputs(model, inputs, task)
    captured, axes = _captured(model, task, inputs, axes)
    bar.advance(note="translate")
    built = torch_capture.translate(captured.program, options.opset)
    bar.advance(note="simplify and check")
    with torch_capture.quiet():
        tidy.tidy(built, captured.bodies, lambda body: translate_body(body, options.opset), model)
    naming.name_values(built, task.inputs, task.outputs)
    proto = naming.to_proto(built, axes, task.outputs, options.ir_version)
    name_by_parameters(proto, model)
    _tell_what_is_read(proto, model)
    finish(proto, options)
    return proto


def _tell_what_is_read(proto: onnx.ModelProto, model: nn.Module) -> None:
    """Note in the file which entries of an input it reads, if units that start from it were removed."""
    used = {
        proto.graph.input[index].name: {"axis": cut.axis, "entries": list(cut.kept)}
        for index, cut in starting_inputs(model).items()
    }
    if used:
        entry = proto.metadata_props.add()
        entry.key, entry.value = READ_KEY, json.dumps(used)


def _captured(model: nn.Module, task: Task, inputs: tuple[Tensor, ...], axes: Axes) -> tuple[Captured, Axes]:
    """The traced model, and its open axes; a loop over time is rolled up if the task has several lengths."""
    from compressor.task.fixed_axes import FixedAxes
    from exporters.capture import program as torch_capture
    from exporters.loops import capture as loops

    if task.min_length < task.max_length:
        return loops.capture(model, task, inputs, axes), axes
    try:
        program = torch_capture.capture(model, inputs, axes)
    except ExportError:
        axes = _without_time(task.inputs)  # cells in a loop are unrolled, which does for a task of one length
        return loops.Captured(torch_capture.capture(model, inputs, axes)), axes
    rolled = None
    if isinstance(task, FixedAxes) and loops.has_cells(program):
        rolled = loops.capture_rolled(model, task.task, inputs, axes)
    return rolled or loops.Captured(program), axes


def _tracing_length(task: Task) -> tuple[int, Axes]:
    """A length to trace at, and the dynamic axes of the inputs; `time` is fixed if only length 1 is allowed."""
    if task.max_length == 1:
        return 1, _without_time(task.inputs)
    return max(2, min(task.length, task.max_length)), task.inputs


def _without_time(inputs: Axes) -> Axes:
    return {name: {axis: word for axis, word in axes.items() if word != "time"} for name, axes in inputs.items()}
