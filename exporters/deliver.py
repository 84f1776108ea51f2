"""A converted file leaves only after it was run in its own runtime and agreed with PyTorch there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from compressor.errors import ExportError, ParityError
from compressor.files import sha256, write_whole
from compressor.report import Artifact, FileDescription, Part
from exporters.checks import agreement
from exporters.parity import Disagreement
from exporters.prepare import private_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from compressor.formats import Job
    from compressor.report import Emulated, TensorInfo


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
    emulated: Emulated | None = None
    """On the microcontroller that it is for."""
    stored: tuple[int, int] | None = None
    """Bytes that a device stores, and the same compressed (gzip), if they are not those of the files."""


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


def deliver(candidate: Candidate, job: Job[Any]) -> Artifact:
    """Check a converted file in its own runtime, put it and what belongs to it in place, and tell about it.

    Args:
        candidate: The converted file and its parts, in a temporary folder.
        job: The export that it was made for.

    Raises:
        ParityError: The file disagrees with PyTorch; nothing is written.
        ExportError: The runtime cannot load or run the file.
        OutputError: The files cannot be written.
    """
    import torch

    from compressor.measure import size
    from compressor.runtimes.runtime_file import open_file
    from compressor.runtimes.steps import read_info

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        compared, runtime = agreement(private_copy(job.model), candidate.path, job)
    if not compared.passed:
        raise Disagreement.of(compared, f"the {candidate.format} file disagrees with PyTorch in {runtime}")
    needed = [candidate.path, *candidate.parts]
    stored, compressed = candidate.stored or (
        sum(part.stat().st_size for part in needed),
        sum(size.gzip_bytes(part) for part in needed),
    )
    file = open_file(candidate.path)
    artifact = Artifact(
        format=candidate.format,
        path=candidate.path.name,
        bytes=stored,
        gzip_bytes=compressed,
        sha256=sha256(candidate.path),
        opset=candidate.opset,
        inputs=file.inputs,
        outputs=file.outputs,
        operators=dict(candidate.operators),
        parity=compared,
        runtime=runtime,
        parts=tuple(
            Part(path=part.name, bytes=part.stat().st_size, sha256=sha256(part), purpose=purpose, shipped=shipped)
            for shipped, files in ((True, candidate.parts), (False, candidate.extras))
            for part, purpose in files.items()
        ),
        notes=candidate.notes,
        emulated=candidate.emulated,
        stream=read_info(file),
        seconds=job.seconds,
    )
    file.close()
    for part in (*needed, *candidate.extras):
        write_whole(job.path.parent / part.name, part.read_bytes())
    return artifact


@dataclass(frozen=True)
class Way:
    """One way to convert a model."""

    name: str
    """As in "by the converter's own loops"."""
    convert: Callable[[Path], Candidate]
    """Writes the file into an empty folder; raises `ExportError`."""


def by_first_right_way(ways: Sequence[Way], folder: Path, job: Job[Any], *, remedy: str) -> Artifact:
    """Convert by the first way whose file agrees with PyTorch in its runtime, and deliver that.

    Args:
        ways: In the order in which they are tried.
        folder: A temporary folder.
        job: The export; its progress shows each way that failed.
        remedy: What an error names if no way is right.

    Returns:
        The artifact; its notes tell of ways that were tried before.

    Raises:
        ParityError: No way is right, and at least one file runs but gives something else than PyTorch.
        ExportError: No way leads to a file that runs.
    """
    failures: list[tuple[str, ExportError]] = []
    for number, way in enumerate(ways):
        inside = folder / f"way{number}"
        inside.mkdir()
        try:
            candidate = way.convert(inside)
            failed = tuple(f"{name} was not right: {_reason(error)}" for name, error in failures)
            notes = (*candidate.notes, *((f"Made {way.name}.", *failed) if len(ways) > 1 else ()))
            return deliver(replace(candidate, notes=notes), job)
        except ExportError as error:
            failures.append((way.name, error))
            job.progress.say(f"{job.path.name} {way.name}: {_reason(error)}")
    if len(failures) == 1:
        failures[0][1].hint = remedy
        raise failures[0][1]
    kind = ParityError if any(isinstance(error, ParityError) for _, error in failures) else ExportError
    listed = "\n".join(f"  {name}: {_reason(error)}" for name, error in failures)
    raise kind(f"no way to convert to {job.path.name} is right:\n{listed}", hint=remedy) from failures[-1][1]


def _reason(error: ExportError) -> str:
    """An error in a line: of a disagreement, the worst point."""
    lines = error.message.splitlines()
    if isinstance(error, Disagreement):
        worst = max(error.parity.points, key=lambda point: (not point.within, point.max_absolute))
        place = f"at batch {worst.batch} and length {worst.length}"
        return f"{lines[0].partition(' (atol')[0]} {place}: {worst.note or f'off by {worst.max_absolute:.2g}'}"
    return " ".join([lines[0], *(line.strip() for line in lines[-1:] if len(lines) > 1)])[:300]
