"""The ONNX file that converters start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.report import Artifact
from exporters import onnx
from exporters.prepare import check_length
from exporters.stepping.options import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.options import ConvertedOptions, FixedLengthOptions


_Outcome = ExportError | tuple[Artifact, dict[str, bytes]]


def onnx_file(job: Job[ConvertedOptions], folder: Path, *, length: int | None = None) -> tuple[Path, Artifact]:
    """The ONNX file of the wanted form, checked against PyTorch in ONNX Runtime, and its facts.

    Args:
        job: The export.
        folder: A temporary folder, which the file is written into.
        length: The one length that the file takes; any if it is left out.

    Raises:
        ExportError: As `exporters.onnx.export`.
    """
    from exporters.capture.halting import refuse_halting

    options, task = job.options, job.task
    refuse_halting(job.model, f"`format: {options.format}`")
    stream = Stream(chunk=options.chunk) if options.is_step else False
    given = options.model_dump(include={"atol", "rtol"}, exclude_unset=True)
    exact = onnx.Options.model_validate({"name": "source", "stream": stream, **given})
    path = folder / "source.onnx"
    source = Job(job.model, task, path, exact, seed=job.seed, progress=job.progress, shared=job.shared)
    artifact = _written(source)
    if options.is_step:
        assert artifact.step is not None
        return folder / artifact.step.path, artifact.step
    if length is None:
        return path, artifact
    from exporters.passes import fixed_shapes

    check_length(task, length)
    return fixed_shapes.write(path, folder / "fixed.onnx", task, length), artifact


def _written(job: Job[Any]) -> Artifact:
    """Export to ONNX, or write again what was exported of the same model before."""
    if job.shared is None:
        return onnx.export(job)
    outcome = job.once("source", job.task, (job.options.model_dump_json(),), lambda: _outcome(job))
    if isinstance(outcome, ExportError):
        raise outcome
    artifact, files = outcome
    for name, content in files.items():
        (job.path.parent / name).write_bytes(content)
    return artifact


def _outcome(job: Job[Any]) -> _Outcome:
    """The artifact and its files, or the error."""
    try:
        artifact = onnx.export(job)
    except ExportError as error:
        return error
    return artifact, {file.name: file.read_bytes() for file in job.path.parent.glob("source*.onnx")}


def remedy(source: Path, title: str, options: FixedLengthOptions, *, unrolls: bool) -> str:
    """What an error names if a runtime is not right with a model whose ONNX file is known.

    Args:
        source: The ONNX file.
        title: Of the runtime.
        options: Of the export.
        unrolls: Whether the runtime is right with layers of relu as plain operations for every position.
    """
    from exporters.passes import fixed_shapes

    if options.form == "step":
        return "use `format: ort`, which runs every model that can be exported"
    relu = ""
    if fixed_shapes.has_relu(source):
        relu = f"{title} computes an RNN of relu as one of tanh: "
    fixed = ""
    if options.length is None and (unrolls or not relu):
        fixed = f"`length: N` (one length{', layers of relu as plain operations' if relu else ''}) or "
    return f"{relu}use {fixed}`form: step`, whose cells are plain operations; or `format: ort`"
