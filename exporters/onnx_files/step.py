"""The step file beside a file of whole sequences: its graph and its checks.

Recurrent layers at one position become plain MatMul, Add, Sigmoid and Tanh, which every phone runtime computes right
and quantizers and accelerators accept; see the option `cells`. Attention keeps its keys and values.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from compressor.runtimes.steps import METADATA_KEY
from exporters import checks
from exporters.capture import native_recurrent
from exporters.capture import program as torch_capture
from exporters.onnx_files import facts, rounded
from exporters.onnx_files.precision import finish
from exporters.passes import external_data, naming, tidy
from exporters.passes.weight_names import name_by_parameters
from exporters.quantization.proof import DEVIATION
from exporters.stepping import chained
from exporters.stepping.find import find_plan
from exporters.stepping.module import traceable

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from torch import nn

    from compressor.formats import Job
    from compressor.progress import Bar
    from compressor.report import Artifact, StreamInfo
    from compressor.surgery.second_order.table import RowTable
    from compressor.task.contract import Task
    from exporters.onnx_files.options import Options
    from exporters.stepping.options import Stream


def step_path(path: Path) -> Path:
    """The step file beside a whole-sequence file: `model.step.onnx` beside `model.onnx`."""
    return path.with_name(f"{path.stem}.step{path.suffix}")


def checked(
    model: nn.Module, whole: Path, job: Job[Options], stream: Stream, bar: Bar, table: RowTable | None = None
) -> tuple[Artifact, dict[Path, Path]]:
    """The step file of `model`, which agrees with PyTorch and with the file `whole`.

    `table` has rows of its weights that are rounded already.

    Returns:
        The facts about it, and where each of its files goes -> where it is.
    """
    job = replace(job, path=step_path(job.path), started=time.perf_counter())
    candidate = step_path(whole)
    proto, info = graph(model, job.task, job.options, stream)
    files = facts.write_files(proto, candidate.parent, job.path, job.options)
    bar.advance(note="compare chained steps")
    parity, beside_file = chained.agreement(model, whole, candidate, job)
    others = checks.in_other_runtimes(model, candidate, job, job.options.check_in)
    artifact = facts.artifact(candidate, files, parity, job.seconds).model_copy(update={"checks": others})
    rounding = job.options.rounding
    if rounding is not None:
        bar.advance(0, note="quantize the step")
        light = external_data.draft(proto, candidate.parent / "step.data")
        artifact, files = rounded.checked(light, candidate, model, job, rounding, parity, bar, table, info)
    return artifact.model_copy(update={"stream": info, "chained": beside_file}), files


def beside_shipped(artifact: Artifact, whole: Path, job: Job[Options]) -> Artifact:
    """The facts about a rounded step file, with how far it is from `whole`, which is now the file that is shipped."""
    rounding, measured = job.options.rounding, artifact.quantization
    if rounding is None or measured is None:
        return artifact
    points = chained.apart(whole, step_path(whole), job, DEVIATION * rounding.max_error)
    return artifact.model_copy(update={"quantization": measured.model_copy(update={"beside_whole": points})})


def graph(model: nn.Module, task: Task, options: Options, stream: Stream) -> tuple[onnx.ModelProto, StreamInfo]:
    """The graph of a step and how it is run; raises `ExportError` as `find_plan` does, or if it cannot be written."""
    planned = find_plan(model, task, chunk=stream.chunk)
    prepared = copy.deepcopy(model)
    if not stream.plain:
        native_recurrent.prepare(prepared, parts=True)
    dynamic = stream.batch == "dynamic"
    step = traceable(prepared, planned, task, chunk=stream.chunk, dynamic=dynamic, plain=stream.plain)
    program = torch_capture.capture(step.module, step.arguments, step.inputs)
    built = torch_capture.translate(program, options.opset)
    with torch_capture.quiet():
        tidy.tidy(built)
    naming.name_values(built, step.inputs, step.outputs)
    proto = naming.to_proto(built, step.inputs, step.outputs, options.ir_version)
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, step.info.model_dump_json()
    name_by_parameters(proto, model)
    finish(proto, options)
    return proto, step.info
