"""Faults of the tool itself: a short report on standard error, and the whole of it in a file that can be attached."""

from __future__ import annotations

import platform
import shlex
import tempfile
import traceback
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_FRAMES: Final = 3
"""Calls shown in the short report, innermost last."""
_PACKAGES: Final = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "pydantic", "typer")
_ALLOCATORS: Final = ("can't allocate memory", "out of memory", "not enough memory")
"""What PyTorch's and ONNX Runtime's allocators say, each in errors of other kinds."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine, not the tool, is at fault."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _ALLOCATORS)


def describe(error: BaseException, arguments: Sequence[str]) -> str:
    """What failed, what ran, with which versions, where the traceback ends, and the file that holds all of it."""
    head = [
        f"error: compressor failed: {_headline(error)}",
        f"command: {shlex.join(['compressor', *arguments])}",
        f"versions: {_versions()}",
    ]
    whole = "".join(traceback.format_exception(error))
    saved = _save("\n".join([*head, f"time: {datetime.now(UTC).isoformat(timespec='seconds')}", "", whole]))
    if saved is None:
        return "\n".join([*head, whole, _hint("the text above")])
    tail = [f"full traceback: {saved}", _hint("this text and file")]
    return "\n".join([*head, "last calls:", *_last_calls(error), *tail])


def _headline(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _hint(what: str) -> str:
    return f"hint: this is a bug in compressor, not in your input; please report it with {what}"


def _versions() -> str:
    """Read from the metadata of packages, since importing one may be what failed."""
    from compressor.version import VERSION

    found = [f"compressor {VERSION}", f"python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} missing")
    return ", ".join([*found, f"{platform.system()} {platform.machine()}"])


def _last_calls(error: BaseException) -> list[str]:
    lines = []
    for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]:
        lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}")
        lines += [f"    {frame.line}"] if frame.line else []
    return lines


def _save(text: str) -> Path | None:
    """A new file in the temporary folder; None if there is no place for it."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="compressor-fault-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(text)
            return Path(file.name)
    except OSError:
        return None
