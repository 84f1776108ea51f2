"""The C compiler of this machine, which is the runtime of `format: c`."""

from __future__ import annotations

import os
import shutil

from compressor.errors import ExportError
from compressor.runtimes import child

_NAMES = ("cc", "gcc", "clang")
_SECONDS = 60.0


def find() -> str:
    """The C compiler: that of the variable `CC`, or the first of cc, gcc and clang; raises `ExportError` if none."""
    named = os.environ.get("CC")
    found = next((path for name in ([named] if named else _NAMES) if (path := shutil.which(name))), None)
    if found is None:
        raise ExportError(
            f"there is no C compiler{f' `{named}`' if named else ''}, which `format: c` needs to check what it writes",
            hint="install gcc or clang (Debian's package gcc), or name one in the variable CC",
        )
    return found


def version() -> str:
    """What the compiler says of itself, its first line; raises `ExportError` if there is none, or it does not run."""
    program = find()
    said = child.run([program, "--version"], seconds=_SECONDS, what="the C compiler")
    return (said.strip().splitlines() or [program])[0]
