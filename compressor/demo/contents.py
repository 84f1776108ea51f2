"""What of a finished run the page shows, and every address that the server answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from compressor.errors import UsageError
from compressor.files import read_text
from compressor.files.staged import PROGRAMS, REPORT_FILE, plain_names, settle
from compressor.report import Report

HERE: Final = Path(__file__).resolve().parent
PAGE: Final = {"": "page.html", "page.js": "page.js", "page.css": "page.css"}
RUNTIME: Final = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@dataclass(frozen=True)
class Shown:
    """A compressed ONNX file."""

    file: str
    program: str
    example: str
    step: bool
    """Whether a call is a step, which carries states."""
    original: str
    """The original in the same form, which takes the same inputs; empty if it is timed alone."""


@dataclass(frozen=True)
class Contents:
    """A finished run as the page shows it."""

    title: str
    files: tuple[Shown, ...]
    addresses: dict[str, Path]
    """What may be asked for, below the token -> the file that answers."""

    def facts(self) -> dict[str, Any]:
        """What the page reads first."""
        return {"title": self.title, "files": [asdict(one) for one in self.files]}


def contents(folder: Path, runtime: Path) -> Contents:
    """Read a run's folder.

    Args:
        folder: Of a finished run.
        runtime: Where ONNX Runtime Web's files are.

    Raises:
        ReportError: It holds no finished run.
        UsageError: None of its files has a program in `use/`.
    """
    settle(folder)
    report = Report.from_json(
        read_text(folder / REPORT_FILE, UsageError, hint="give the --out folder of a finished run")
    )
    originals = [report.original, *report.elsewhere]
    files: list[Shown] = []
    for measurement, baseline in zip(report.compressed, report.baselines, strict=True):
        original = originals[baseline].artifact
        alike = [item.name for item in original.inputs] == [item.name for item in measurement.artifact.inputs]
        for artifact in (measurement.artifact, measurement.artifact.step):
            if artifact is None or f"{PROGRAMS}/{_stem(artifact.path)}.mjs" not in report.files:
                continue
            whole = artifact.stream is None and alike and original.format == "onnx"
            files.append(
                _shown(artifact.path, step=artifact.stream is not None, original=original.path if whole else "")
            )
    if not files:
        raise UsageError(
            f"{folder} has no programs in `{PROGRAMS}/`, by which the page runs files",
            hint="run the recipe in full, not with --quick, with `format: onnx` and without `programs: false`",
        )
    addresses = {address: HERE / name for address, name in PAGE.items()}
    addresses |= {f"ort/{name}": runtime / name for name in RUNTIME}
    for one in files:
        names = [one.file, one.program, one.example, *([one.original] if one.original else [])]
        addresses |= {f"run/{name}": folder / name for name in plain_names(names)}
    return Contents(report.name, tuple(files), addresses)


def _shown(file: str, *, step: bool, original: str) -> Shown:
    stem = f"{PROGRAMS}/{_stem(file)}"
    return Shown(file, f"{stem}.mjs", f"{stem}.example.json", step, original)


def _stem(file: str) -> str:
    return file.removesuffix(".onnx")
