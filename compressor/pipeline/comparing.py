"""What two runs that should be the same have in common: files by their bytes, facts but for times and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from compressor.errors import OutputError
from compressor.files import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TIMED: Final = frozenset(
    {
        "command",
        "created",
        "evaluation_seconds",
        "latency",
        "latency_ms",
        "milliseconds",
        "limits",
        "load",
        "peak_memory_bytes",
        "processor_seconds",
        "seconds",
        "speedup",
        "speedups",
        "stages",
    }
)
"""Facts of a report that measure time, memory or how busy the machine was, or follow from such; and the command, which
names the folder."""
VIEWS: Final = frozenset({"report.html", "report.json", "report.md", "run.log"})
"""Files that hold such facts."""


def files_that_differ(first: Path, second: Path, names: Iterable[str]) -> list[str]:
    """A line for each of the files that is not the same, byte by byte, in both folders."""
    told = []
    for name in names:
        if name in VIEWS:
            continue
        try:
            same = sha256(first / name) == sha256(second / name)
        except OutputError as error:
            told.append(error.message)
            continue
        if not same:
            told.append(f"{name} has other bytes")
    return told


def facts_that_differ(first: Any, second: Any) -> list[str]:
    """A line for each fact of two reports, as JSON, that differs and measures neither time nor memory."""
    return list(_differing(first, second, ""))


def _differing(first: Any, second: Any, place: str) -> Iterator[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second} - TIMED):
            yield from _differing(first.get(key), second.get(key), f"{place}.{key}" if place else key)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, pair in enumerate(zip(first, second, strict=True)):
            yield from _differing(*pair, f"{place}.{index}")
    elif first != second:
        yield f"{place}: {str(first)[:80]} and {str(second)[:80]}"
