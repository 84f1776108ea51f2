"""Fetches what is missing of the emulated machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from compressor.files import writing
from compressor.progress import Progress, Silent
from compressor.runtimes.emulation import packages
from compressor.runtimes.emulation.machine import (
    ARCH,
    DEBIAN_ARCH,
    PYTHON,
    Machine,
    find,
    folder,
    qemu,
    root_is_there,
    wheel_version,
)
from compressor.runtimes.installing import install_for_machine

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libgomp1", "libstdc++6")
_SILENT = Silent()


def prepare(mirror: str | None = None, progress: Progress = _SILENT) -> Machine:
    """Fetch what is missing of the emulated machine: Debian packages with `apt-get`, wheels with `pip`.

    Nothing is installed on this system: packages are verified by `apt-get` and unpacked into the cache folder.

    Args:
        mirror: Address of a Debian mirror; by default that from which this system takes its packages.
        progress: Told of each part.

    Raises:
        UsageError: This system has no `apt-get`, or takes its packages from no Debian mirror.
        ExportError: Something could not be fetched; with the program's last lines.
        OutputError: The cache folder cannot be written.
    """
    place = folder()
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    with progress.bar(f"setting up {ARCH}", 3) as bar:
        if qemu()[0] is None:
            _replaced(place / "qemu", lambda into: _emulator(into, mirror))
        bar.advance(note="qemu")
        if not root_is_there():
            _replaced(place / "root", lambda into: packages.unpack(into, mirror, DEBIAN_ARCH, _PACKAGES, alone=False))
        bar.advance(note="root file system")
        if wheel_version() != onnxruntime.__version__:
            _replaced(place / "packages", _wheels)
        bar.advance(note="wheels")
    return find()


def _replaced(path: Path, make: Callable[[Path], None]) -> None:
    """Let `make` fill a folder that then replaces `path`: never half of it."""
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as work:
        new = Path(work) / "new"
        new.mkdir()
        make(new)
        shutil.rmtree(path, ignore_errors=True)
        new.replace(path)


def _emulator(into: Path, mirror: str | None) -> None:
    """The one program that is used, of the many in the package."""
    with tempfile.TemporaryDirectory(dir=into.parent) as work:
        packages.unpack(Path(work), mirror, packages.own_arch(), ("qemu-user",), alone=True)
        shutil.copy2(Path(work) / "usr" / "bin" / f"qemu-{ARCH}", into)


def _wheels(into: Path) -> None:
    version = onnxruntime.__version__
    title = f"the {ARCH} wheel of onnxruntime {version}"
    install_for_machine(into, [f"onnxruntime=={version}"], machine=ARCH, python=PYTHON, title=title)
