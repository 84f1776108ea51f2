"""The C compiler on generated code: tries it under the sanitizers, and tells how large it is."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.runtimes import c_compiler, child

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.c_code.sources import Sources

_SECONDS = 300.0
_SHADOW = 1 << 47
"""Bytes of address space that sanitizers reserve and hardly use."""
_STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
_SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def sanitize(code: Path, written: Sources, *, runs: bool) -> None:
    """Compile with every warning as an error, and run three steps on made-up inputs under the sanitizers.

    Args:
        code: The file, in a folder of its own.
        written: What is in it.
        runs: Whether it is run too.
    """
    program = code.with_name("try")
    (code.with_name("try_main.c")).write_text(written.trial(), encoding="ascii")
    base = [c_compiler.find(), *_STRICT, "-o", str(program), str(code), str(code.with_name("try_main.c"))]
    what = f"the C compiler on {code.name}"
    child.run([*base, "-O2", "-lm"], seconds=_SECONDS, what=what)
    if not runs:
        return
    try:
        child.run([*base, *_SANITIZED, "-lm"], seconds=_SECONDS, what=what)
    except ExportError:
        return  # a compiler without sanitizers: it compiled without them
    what = f"{code.name} under the sanitizers of the C compiler"
    child.run([str(program)], seconds=_SECONDS, what=what, memory=_SHADOW)


def object_bytes(code: Path) -> int:
    """Bytes of code and constants in an object file that is compiled for size."""
    target, what = code.with_name("size.o"), f"the C compiler on {code.name}"
    child.run([c_compiler.find(), "-std=c99", "-Os", "-c", "-o", str(target), str(code)], seconds=_SECONDS, what=what)
    listed = shutil.which("size")
    if listed is None:
        return target.stat().st_size
    lines = child.run([listed, "-B", str(target)], seconds=_SECONDS, what="the program `size`").splitlines()
    text, data = lines[1].split()[:2]
    return int(text) + int(data)
