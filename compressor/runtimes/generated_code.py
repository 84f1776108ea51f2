"""Source code is compiled and run only if this process wrote it: that of a file may be anybody's."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from compressor.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_written: set[bytes] = set()


def approve(code: Path) -> None:
    """Remember what has just been written: a `.c` file and the headers beside it."""
    _written.add(_digest(code))


def ensure(code: Path) -> None:
    """Raise `ExportError` if this process did not write a `.c` file and the headers beside it."""
    if _digest(code) not in _written:
        raise ExportError(
            f"{code} is source code, and the tool compiles and runs none that the running command did not write",
            hint="compile it in your own project; the report of its run has its agreement, metric and latency",
        )


def _digest(code: Path) -> bytes:
    digest = hashlib.sha256()
    for path in (code, *_included(code)):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


def _included(code: Path) -> Sequence[Path]:
    """The headers that it includes from its own folder."""
    if not code.is_file():
        return ()
    text = code.read_text(encoding="ascii", errors="replace")
    return [code.with_name(name) for name in re.findall(r'#\s*include\s*"([^"/]*)"', text)]
