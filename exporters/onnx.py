"""ONNX files that phones load: native recurrent nodes, plain initializers, dynamic batch and time, one file.

The file is checked before it gets its name: the ONNX checker, strict shape inference, and agreement with PyTorch at
several batch sizes and lengths, most of them never seen while exporting.

Notes on runtimes: a relu `nn.RNN` is right in ONNX Runtime and OpenVINO, but MNN, ncnn and tract compute its native
node as if it were tanh. MNN's converter wants `--useOriginRNNImpl` for LSTMs.
Packed sequences use the nodes' `sequence_lens` input: try such a file in the target runtime.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor.files import write_all, writing
from compressor.files.scratch import Scratch
from compressor.runtimes.freed_memory import give_back
from exporters.onnx_files.options import Options
from exporters.prepare import private_copy, workshop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto
    from torch import nn

    from compressor.formats import Found, Job
    from compressor.progress import Bar
    from compressor.report import Artifact
    from compressor.task.contract import Task

__all__ = ["Options", "export"]

_WEIGHTS = "float.data"
"""The file of a draft's weights."""
_FOR_STEPS_ONLY = "float32: a file of whole sequences has open shapes, and the step file is the one for accelerators"


def export(job: Job[Options]) -> Artifact:
    """Write a model to `job.path` as one ONNX file that is known to agree with PyTorch.

    Returns:
        The facts about the file, and in `step` about its step file; `path` in it is the bare file name.

    Raises:
        ExportError: The model cannot be exported; the message says what to change.
        ParityError: The file disagrees with PyTorch.
        OutputError: The file cannot be written.
    """
    import torch

    from compressor.task.fixed_axes import fixed

    given, job = job.task, replace(job, task=fixed(job.task, job.options.shapes))
    with (
        torch.random.fork_rng(devices=[]),
        job.progress.bar(f"export {job.path.name}", total=6 if job.options.streams else 4) as bar,
        workshop(job.path) as folder,  # first of all, so that a folder that cannot be written is known at once
    ):
        torch.manual_seed(job.seed)
        artifact, files = _checked(job, given, folder / job.path.name, bar)
        with writing(job.path):
            write_all(files)
        bar.advance(note="done")
    return artifact


@dataclass(frozen=True)
class _Graph:
    """A copy of the model, its graph, and what both depend on."""

    reference: nn.Module
    proto: ModelProto
    """A draft: its large weights lie in a file in `folder`."""
    folder: Scratch
    settings: str

    def draft_in(self, folder: Path) -> ModelProto:
        """The draft with its file of weights in another folder too."""
        with writing(folder / _WEIGHTS):
            shutil.copyfile(self.folder.path / _WEIGHTS, folder / _WEIGHTS)
        return copy.deepcopy(self.proto)


def _graph(job: Job[Options], given: Task, bar: Bar) -> _Graph:
    """They are made once for all files that differ in what is done to the graph later.

    `given` is the task before sizes were fixed.
    """
    from exporters.onnx_files import sequence
    from exporters.passes import external_data

    options, is_new = job.options, False
    later = {"format", "name", "atol", "rtol", "may_be_larger", "external_data", "stream", "rounding", "check_in"}
    later.add("programs")
    form = options.model_copy(update={} if options.computes_in == "float16" else {"precision": "float32"})
    settings = form.model_dump_json(exclude=later)

    def made() -> tuple[nn.Module, ModelProto, Scratch]:
        nonlocal is_new
        is_new = True
        reference = private_copy(job.model, same_parameters=True)
        proto = sequence.graph(reference, job.task, options, bar)
        folder = Scratch()
        return reference, external_data.draft(proto, folder.path / _WEIGHTS), folder

    reference, proto, folder = job.once("graph", given, (settings,), made)
    if not is_new:
        bar.advance(2)
    give_back()  # of tracing and translating
    return _Graph(reference, proto, folder, settings)


def _checked(job: Job[Options], given: Task, candidate: Path, bar: Bar) -> tuple[Artifact, dict[Path, Path]]:
    """The facts about all files of the export, which agree with PyTorch, and where each goes -> where it is."""
    from exporters import checks
    from exporters.onnx_files import facts, rounded, step

    options = job.options
    rounds = options.rounding is not None and not (options.rounding.for_npu and options.streams)
    graph = _graph(job, given, bar)
    reference = graph.reference
    draft = graph.draft_in(candidate.parent)
    files = facts.write_files(draft, candidate.parent, job.path, options)
    bar.advance(note="compare with PyTorch")
    settings = graph.settings, *options.tolerances, options.strict, options.external_data, options.check_in
    parity, others = job.once(
        "agreement",
        given,
        settings,
        lambda: (
            checks.in_onnx_runtime(reference, candidate, job),
            checks.in_other_runtimes(reference, candidate, job, options.check_in),
        ),
    )
    if not rounds:
        artifact = facts.artifact(candidate, files, parity, job.seconds).model_copy(update={"checks": others})
    beside: Artifact | None = None
    more: dict[Path, Path] = {}

    def once(what: str, own: tuple[Any, ...], find_out: Callable[[], Found]) -> Found:
        return job.once(what, given, (graph.settings, *own), find_out)

    table = None
    if options.rounding is not None:
        table = rounded.table(draft, candidate.parent, reference, job, bar, once)
    if options.step is not None:
        bar.advance(note="step by step")
        beside, more = step.checked(private_copy(job.model), candidate, job, options.step, bar, table)
    if options.rounding is not None and not rounds:
        artifact = artifact.model_copy(update={"notes": (_FOR_STEPS_ONLY,)})
    elif options.rounding is not None:
        bar.advance(0, note="quantize")
        artifact, files = rounded.checked(draft, candidate, reference, job, options.rounding, parity, bar, table)
    if beside is not None:
        beside = step.beside_shipped(beside, candidate, job)
    return artifact.model_copy(update={"step": beside}), {**files, **more}
