"""The boards that can be emulated, and the tools that this takes."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from compressor.errors import ExportError
from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Mapping

BoardName = Literal["cortex-m4", "cortex-m7"]
COMPILER: Final = "arm-none-eabi-gcc"
EMULATOR: Final = "qemu-system-arm"
_SIZE: Final = "arm-none-eabi-size"
_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Board:
    """A processor, and a board of QEMU's that has it."""

    cpu: BoardName
    machine: str
    """By QEMU's name."""
    flags: tuple[str, ...]
    """Of the compiler."""


BOARDS: Final[Mapping[BoardName, Board]] = {
    "cortex-m4": Board("cortex-m4", "mps2-an386", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16")),
    "cortex-m7": Board("cortex-m7", "mps2-an500", ("-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16")),
}


@dataclass(frozen=True)
class Tools:
    """Programs that are there."""

    compiler: str
    size: str
    emulator: str

    def describe(self) -> tuple[str, str]:
        """Name and version of the compiler and of the emulator."""
        compiler = child.run([self.compiler, "-dumpversion"], seconds=_SECONDS, what=COMPILER).strip()
        said = child.run([self.emulator, "--version"], seconds=_SECONDS, what=EMULATOR)
        version = re.search(r"version (\d+(?:\.\d+)*)", said)
        return f"gcc {compiler}", f"QEMU {version[1] if version else 'of unknown version'}"


def tools() -> Tools:
    """What compiles for the boards and emulates them.

    Raises:
        ExportError: Something is missing; the message names each, the hint the package that has it.
    """
    places = {program: shutil.which(program) for program in (COMPILER, _SIZE, EMULATOR)}
    packages = {COMPILER: "gcc-arm-none-eabi", _SIZE: "binutils-arm-none-eabi", EMULATOR: "qemu-system-arm"}
    missing = {f"`{program}`": packages[program] for program, place in places.items() if place is None}
    compiler = places[COMPILER]
    if compiler is not None and not _has_library(compiler):
        missing["newlib, the C library"] = "libnewlib-arm-none-eabi"
    if missing:
        raise ExportError(
            f"no microcontroller can be emulated here; missing: {', '.join(missing)}",
            hint=f"install Debian's {' '.join(missing.values())}, or what your system calls them",
        )
    return Tools(*(place or "" for place in places.values()))


def _has_library(compiler: str) -> bool:
    """Whether newlib's mathematics is where the compiler looks; else it prints the bare name."""
    said = child.run([compiler, "-print-file-name=libm.a"], seconds=_SECONDS, what=COMPILER)
    return Path(said.strip()).is_absolute()
