"""The emulated machine: where it is kept, and what is missing of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from compressor.errors import UsageError
from compressor.files import cache_folder
from compressor.runtimes import child

ARCH = "aarch64"
DEBIAN_ARCH = "arm64"
PYTHON = "3.13"
"""Of the Debian suite that is unpacked."""
OLDEST_QEMU = 10
"""Version 7.2 crashes when it loads ONNX Runtime; 10.0 was tried with 90 files."""
SETUP = "compressor verify --arch aarch64 --setup"
CPU = "cortex-a76"


@dataclass(frozen=True)
class Machine:
    """An emulated machine that can run ONNX files."""

    qemu: Path
    qemu_version: str
    root: Path
    packages: Path

    def describe(self) -> str:
        """In words."""
        return f"{ARCH} emulated by qemu {self.qemu_version} ({CPU})"


def folder() -> Path:
    """Where the emulated machine is kept, in the user's cache folder."""
    return cache_folder() / ARCH


def find() -> Machine:
    """The emulated machine.

    Raises:
        UsageError: Parts of it are missing or do not fit; the message names each, the hint the command that gets them.
    """
    place, missing = folder(), []
    program, version, fault = qemu()
    if fault:
        missing.append(fault)
    if not root_is_there():
        missing.append(f"a root file system with Python {PYTHON} for {ARCH}, in {place / 'root'}")
    wanted, there = onnxruntime.__version__, wheel_version()
    if there is None:
        missing.append(f"the {ARCH} wheels of onnxruntime {wanted} and NumPy, in {place / 'packages'}")
    elif there != wanted:
        missing.append(f"the {ARCH} wheel of onnxruntime {wanted}, which runs here; that in {place} is {there}")
    if missing or program is None:
        raise UsageError(
            f"{ARCH} cannot be emulated here; missing: " + "; ".join(missing),
            hint=f"`{SETUP}` fetches what is missing (some 110 MB of Debian packages and wheels) into {place}",
        )
    return Machine(program, version, place / "root", place / "packages")


def qemu() -> tuple[Path | None, str, str]:
    """The emulator and its version, or what is wrong."""
    found = [folder() / "qemu" / f"qemu-{ARCH}"]
    names = (f"qemu-{ARCH}", f"qemu-{ARCH}-static")
    found += [Path(place) for name in names if (place := shutil.which(name)) is not None]
    old = ""
    for path in found:
        if path.is_file():
            version = _version(path)
            if int(version.split(".", 1)[0]) >= OLDEST_QEMU:
                return path, version, ""
            old = f"; {path} is {version}, and 7.2 was seen to crash when it loads ONNX Runtime"
    return None, "", f"qemu-{ARCH}, version {OLDEST_QEMU} or newer (of Debian's package qemu-user){old}"


def _version(qemu: Path) -> str:
    said = child.run([str(qemu), "--version"], seconds=30.0, what=f"{qemu} --version", hint=f"`{SETUP}` fetches one")
    found = re.search(r"version (\d+(?:\.\d+)*)", said)
    return found[1] if found else "0"


def root_is_there() -> bool:
    """Whether there is a root file system with Python."""
    return (folder() / "root" / "usr" / "bin" / f"python{PYTHON}").is_file()


def wheel_version() -> str | None:
    """Of ONNX Runtime for the emulated machine; None if it is not there."""
    for path in (folder() / "packages").glob("onnxruntime-*.dist-info"):
        return path.name.removeprefix("onnxruntime-").removesuffix(".dist-info")
    return None
