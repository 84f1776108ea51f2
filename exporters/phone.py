"""What the exporters of formats other than ONNX share: the ONNX file that they start from, and the last check.

A converted file leaves only after it was run in its own runtime and agreed with PyTorch there; see `deliver`.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compressor.errors import ExportError, ParityError
from compressor.files import write_whole, writing
from compressor.progress import Progress, Silent
from compressor.report import Artifact, FileDescription, Parity, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from compressor.report import TensorInfo
    from compressor.task.contract import Task

_SILENT = Silent()


class PhoneOptions(BaseModel):
    """Options that every format for phones has."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the file, without its ending."""
    form: Literal["sequence", "step"] = "sequence"
    """A whole sequence at once; or a step: `chunk` positions and the states of all layers in, outputs and new states
    out, of causal models only."""
    chunk: int = Field(default=1, ge=1, le=256)
    """Positions in a step."""
    atol: float = Field(default=1e-5, gt=0, le=1e-1, allow_inf_nan=False)
    """Absolute tolerance of the comparison with PyTorch."""
    rtol: float = Field(default=1e-4, gt=0, le=1e-1, allow_inf_nan=False)
    """Relative tolerance of the comparison with PyTorch."""
    seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Time limit of the conversion, in seconds."""

    @model_validator(mode="after")
    def _chunk_of_steps_only(self) -> PhoneOptions:
        if self.chunk != 1 and self.form != "step":
            raise ValueError("`chunk` is an option of steps, which are written with `form: step`")
        return self


@contextlib.contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, gone afterwards; entered first, so that an unwritable folder shows at once."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    with folder as name:
        yield Path(name)


class ConvertedOptions(PhoneOptions):
    """Options of formats that foreign converters write."""

    length: int | None = Field(default=None, ge=1, le=4096)
    """The one length that the file takes, with one sample at a time. By default any, where the format can do that.
    Only `form: sequence` has it: a step takes sequences of any length."""

    @model_validator(mode="after")
    def _length_of_sequences_only(self) -> ConvertedOptions:
        if self.length is not None and self.form == "step":
            raise ValueError("`length` is an option of whole sequences; a step file takes any length step by step")
        return self


def onnx_file(
    model: nn.Module, task: Task, folder: Path, options: PhoneOptions, *, seed: int, progress: Progress = _SILENT
) -> tuple[Path, Artifact]:
    """The ONNX file of the wanted form, checked against PyTorch in ONNX Runtime, and its facts.

    Raises:
        ExportError: As `exporters.onnx.export`.
    """
    from exporters import onnx

    step = options.form == "step"
    own = onnx.Options(
        name="source", stream=step, chunk=options.chunk if step else 1, atol=options.atol, rtol=options.rtol
    )
    path = folder / "source.onnx"
    artifact = _shared(model, task, path, own, seed, progress)
    if step:
        assert artifact.step is not None
        return folder / artifact.step.path, artifact.step
    length = getattr(options, "length", None)
    if length is None:
        return path, artifact
    from exporters.passes import fixed_shapes

    _refuse_other_length(task, length)
    return fixed_shapes.write(path, folder / "fixed.onnx", task, length), artifact


_Outcome = ExportError | tuple[Artifact, dict[str, bytes]]
_SHARED: dict[tuple[int, str], tuple[Any, _Outcome]] | None = None


@contextlib.contextmanager
def shared_sources() -> Iterator[None]:
    """Within it a model is exported to ONNX once for all formats; it must not change meanwhile."""
    global _SHARED  # noqa: PLW0603  # one process exports one model after the other
    _SHARED = {}
    try:
        yield
    finally:
        _SHARED = None


def _shared(model: nn.Module, task: Task, path: Path, own: Any, seed: int, progress: Progress) -> Artifact:
    """Export to ONNX, or write again what was exported of the same model before."""
    from exporters import onnx

    if _SHARED is None:
        return onnx.export(model, task, path, own, progress=progress, seed=seed)
    key = id(model), own.model_dump_json()
    if key not in _SHARED:
        _SHARED[key] = model, _outcome(model, task, path, own, seed, progress)
    outcome = _SHARED[key][1]
    if isinstance(outcome, ExportError):
        raise outcome
    artifact, files = outcome
    for name, content in files.items():
        (path.parent / name).write_bytes(content)
    return artifact


def _outcome(model: nn.Module, task: Task, path: Path, own: Any, seed: int, progress: Progress) -> _Outcome:
    """The artifact and its files, or the error."""
    from exporters import onnx

    try:
        artifact = onnx.export(model, task, path, own, progress=progress, seed=seed)
    except ExportError as error:
        return error
    return artifact, {file.name: file.read_bytes() for file in path.parent.glob("source*.onnx")}


def remedy(source: Path, title: str, options: ConvertedOptions, *, unrolls: bool) -> str:
    """What an error names where a runtime is not right with a model whose ONNX file is known.

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


def _refuse_other_length(task: Task, length: int) -> None:
    if not task.min_length <= length <= task.max_length:
        raise ExportError(
            f"length is {length}, but the task's sequences have {task.min_length} to {task.max_length} positions",
            hint="give a `length` among these",
        )


@dataclass(frozen=True)
class Candidate:
    """A converted file that has not been checked yet."""

    path: Path
    """The file, under the name that it will have."""
    format: str
    parts: Mapping[Path, str] = field(default_factory=dict)
    """Further files that the phone needs, in the same folder -> what they hold."""
    extras: Mapping[Path, str] = field(default_factory=dict)
    """Further files that it does not need."""
    operators: Mapping[str, int] = field(default_factory=dict)
    opset: int | None = None
    notes: tuple[str, ...] = ()


def describe(
    candidate: Path,
    form: str,
    runtime: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    *,
    metadata: Mapping[str, str] | None = None,
    details: Mapping[str, str] | None = None,
) -> Path:
    """Write the description beside a candidate, for a format that does not describe itself; returns its path."""
    from compressor.runtimes.runtime_file import description_path

    description = FileDescription(
        format=form,
        runtime=runtime,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        metadata=dict(metadata or {}),
        details=dict(details or {}),
    )
    path = description_path(candidate)
    path.write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


class Tolerances(Protocol):
    """How far a file may be from PyTorch."""

    @property
    def atol(self) -> float:
        """Absolute tolerance."""

    @property
    def rtol(self) -> float:
        """Relative tolerance."""


def agreement(
    reference: nn.Module, candidate: Path, task: Task, options: Tolerances, seed: int, *, runtime: str | None = None
) -> tuple[Parity, str]:
    """Agreement of a file with PyTorch in its own runtime, at the batch sizes and lengths that it takes.

    Args:
        reference: The model, as `exporters.onnx` copies it.
        candidate: The file; a step file is chained over sequences.
        task: Of the model.
        options: Tolerances.
        seed: Seeds the examples.
        runtime: Another runtime for an ONNX file.

    Returns:
        The comparison, passed or not, and name and version of the runtime.

    Raises:
        ExportError: The file cannot be loaded.
    """
    import torch

    from compressor.measure import parity
    from compressor.runtimes.forward import open_forward
    from compressor.runtimes.steps import Steps
    from compressor.task.fixed_axes import fixed
    from exporters.capture.program import plain_attention
    from exporters.stepping import graph

    forward = open_forward(candidate, task, runtime=runtime)
    try:
        if isinstance(forward, Steps):
            return graph.beside_torch(reference, forward, task, options, seed), forward.runtime
        sizes = {"batch": 1 if forward.alone else None, "time": forward.length}
        taken = fixed(task, {axis: size for axis, size in sizes.items() if size is not None})
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad(), plain_attention():
            found = parity.check(reference, forward, taken, atol=options.atol, rtol=options.rtol, generator=generator)
        return found, forward.runtime
    finally:
        forward.close()


def deliver(
    candidate: Candidate, model: nn.Module, task: Task, path: Path, options: PhoneOptions, *, seed: int, started: float
) -> Artifact:
    """Check a converted file in its own runtime, put it and what belongs to it in place, and tell about it.

    Args:
        candidate: The converted file and its parts, in a temporary folder.
        model: What it was made of; it is not changed.
        task: Of the model.
        path: Gives the folder that the files are put into.
        options: Tolerances.
        seed: Seeds the examples.
        started: `time.perf_counter()` when the export began.

    Raises:
        ParityError: The file disagrees with PyTorch; nothing is written.
        ExportError: The runtime cannot load or run the file.
        OutputError: The files cannot be written.
    """
    import torch

    from compressor.measure import size
    from compressor.runtimes.runtime_file import open_file
    from compressor.runtimes.steps import read_info
    from exporters import onnx

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found, runtime = agreement(onnx._private_copy(model), candidate.path, task, options, seed)
    if not found.passed:
        from compressor.measure import parity

        raise Disagreement(
            found,
            f"the {candidate.format} file disagrees with PyTorch in {runtime} "
            f"(atol {found.atol:g}, rtol {found.rtol:g}):\n" + parity.table(found),
            hint="where every point is close, raise atol and rtol",
        )
    needed = [candidate.path, *candidate.parts]
    file = open_file(candidate.path)
    artifact = Artifact(
        format=candidate.format,
        path=candidate.path.name,
        bytes=sum(part.stat().st_size for part in needed),
        gzip_bytes=sum(size.gzip_bytes(part) for part in needed),
        sha256=_sha256(candidate.path),
        opset=candidate.opset,
        inputs=file.inputs,
        outputs=file.outputs,
        operators=dict(candidate.operators),
        parity=found,
        runtime=runtime,
        parts=tuple(
            Part(path=part.name, bytes=part.stat().st_size, sha256=_sha256(part), purpose=purpose, shipped=shipped)
            for shipped, files in ((True, candidate.parts), (False, candidate.extras))
            for part, purpose in files.items()
        ),
        notes=candidate.notes,
        stream=read_info(file),
        seconds=time.perf_counter() - started,
    )
    file.close()
    for part in (*needed, *candidate.extras):
        write_whole(path.parent / part.name, part.read_bytes())
    return artifact


class Disagreement(ParityError):
    """A `ParityError` that holds the comparison."""

    def __init__(self, found: Parity, message: str, *, hint: str | None = None) -> None:
        """For a comparison that was not passed."""
        super().__init__(message, hint=hint)
        self.found = found


@dataclass(frozen=True)
class Way:
    """One way to convert a model."""

    name: str
    """As in "by the converter's own loops"."""
    convert: Callable[[Path], Candidate]
    """Writes the file into an empty folder; raises `ExportError`."""


def by_first_right_way(
    ways: Sequence[Way],
    folder: Path,
    model: nn.Module,
    task: Task,
    path: Path,
    options: PhoneOptions,
    *,
    seed: int,
    started: float,
    remedy: str,
    progress: Progress = _SILENT,
) -> Artifact:
    """Convert by the first way whose file agrees with PyTorch in its runtime, and deliver that.

    Args:
        ways: In the order in which they are tried.
        folder: A temporary folder.
        model: What is converted.
        task: Of the model.
        path: As for `deliver`.
        options: As for `deliver`.
        seed: As for `deliver`.
        started: As for `deliver`.
        remedy: What an error names where no way is right.
        progress: Told of each way that is given up.

    Returns:
        The artifact; its notes tell of ways that were tried before.

    Raises:
        ParityError: No way is right, and at least one file runs but gives something else than PyTorch.
        ExportError: No way leads to a file that runs.
    """
    failures: list[tuple[str, ExportError]] = []
    for number, way in enumerate(ways):
        own = folder / f"way{number}"
        own.mkdir()
        try:
            candidate = way.convert(own)
            told = tuple(f"{name} was not right: {_reason(error)}" for name, error in failures)
            notes = (*candidate.notes, *((f"Made {way.name}.", *told) if len(ways) > 1 else ()))
            return deliver(replace(candidate, notes=notes), model, task, path, options, seed=seed, started=started)
        except ExportError as error:
            failures.append((way.name, error))
            progress.say(f"{path.name} {way.name}: {_reason(error)}")
    if len(failures) == 1:
        failures[0][1].hint = remedy
        raise failures[0][1]
    kind = ParityError if any(isinstance(error, ParityError) for _, error in failures) else ExportError
    listed = "\n".join(f"  {name}: {_reason(error)}" for name, error in failures)
    raise kind(f"no way to convert to {path.name} is right:\n{listed}", hint=remedy) from failures[-1][1]


def _reason(error: ExportError) -> str:
    """An error in a line: where it disagrees, the point that is worst."""
    lines = error.message.splitlines()
    if isinstance(error, Disagreement):
        worst = max(error.found.points, key=lambda point: (not point.within, point.max_absolute))
        where = f"at batch {worst.batch} and length {worst.length}"
        return f"{lines[0].partition(' (atol')[0]} {where}: {worst.note or f'off by {worst.max_absolute:.2g}'}"
    return " ".join([lines[0], *(line.strip() for line in lines[-1:] if len(lines) > 1)])[:300]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
