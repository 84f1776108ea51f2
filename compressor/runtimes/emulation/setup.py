"""Fetches what is missing of the emulated machine."""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from compressor.errors import UsageError
from compressor.files import writing
from compressor.progress import Progress, Silent
from compressor.runtimes import child
from compressor.runtimes.emulation.machine import (
    ARCH,
    DEBIAN_ARCH,
    OLDEST_QEMU,
    PYTHON,
    SETUP,
    Machine,
    find,
    folder,
    qemu,
    root_is_there,
    wheel_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SUITE = "trixie"
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libgomp1", "libstdc++6")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS = 1800.0
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
            _replaced(place / "root", lambda into: _unpack(into, mirror, DEBIAN_ARCH, _PACKAGES, alone=False))
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


def _own_arch() -> str:
    _need("dpkg")
    what = "`dpkg --print-architecture`"
    return child.run(["dpkg", "--print-architecture"], seconds=30.0, what=what).strip()


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise UsageError(
            f"there is no `{program}` here, with which Debian packages are fetched and unpacked",
            hint=f"on another system, install qemu-user {OLDEST_QEMU} or newer and put a root file system of Debian "
            f"{_SUITE} with Python for {DEBIAN_ARCH} into {folder() / 'root'}; then `{SETUP}` gets the wheels alone",
        )


def _emulator(into: Path, mirror: str | None) -> None:
    """The one program that is used, of the many in the package."""
    with tempfile.TemporaryDirectory(dir=into.parent) as work:
        _unpack(Path(work), mirror, _own_arch(), ("qemu-user",), alone=True)
        shutil.copy2(Path(work) / "usr" / "bin" / f"qemu-{ARCH}", into)


def _unpack(into: Path, mirror: str | None, arch: str, packages: Sequence[str], *, alone: bool) -> None:
    """Fetch packages for a processor, with all that they depend on unless `alone`, and unpack them."""
    _need("apt-get")
    _need("dpkg-deb")
    with tempfile.TemporaryDirectory() as work:
        archives = _archives(Path(work), mirror or _mirror(), arch, packages, alone=alone)
        for archive in archives:
            what = f"unpacking {archive.name}"
            child.run(["dpkg-deb", "-x", str(archive), str(into)], seconds=_SECONDS, what=what)
    for name in ("lib", "bin"):  # Debian's base package, which is not among them, makes these links
        if (into / "usr" / name).is_dir() and not (into / name).exists():
            (into / name).symlink_to(f"usr/{name}")


def _archives(work: Path, mirror: str, arch: str, packages: Sequence[str], *, alone: bool) -> list[Path]:
    """Packages as files; `apt-get` works on lists and a state of its own in the folder `work`."""
    for path in ("lists/partial", "cache/archives/partial"):
        (work / path).mkdir(parents=True)
    (work / "status").touch()
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.is_file() else ""
    (work / "sources.list").write_text(f"deb {signed}{mirror} {_SUITE} main\n")
    settings = {
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
        "Dir::State::Lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
    }
    apt = ["apt-get", "-q", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    hint = "is the network reachable, and does the mirror have that suite? --mirror URL names another one"
    child.run(
        [*apt, "-o", "APT::Update::Error-Mode=any", "update"],
        seconds=_SECONDS, what=f"fetching the lists of packages for {arch}", hint=hint,
    )  # fmt: skip
    if alone:
        command = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(work / "cache/archives"), *apt, "download"]
    else:
        command = [*apt, "install", "--yes", "--download-only", "--no-install-recommends"]
    what = f"fetching {', '.join(packages)} for {arch}"
    child.run([*command, *packages], seconds=_SECONDS, what=what, hint=hint)
    return sorted((work / "cache" / "archives").glob("*.deb"))


def _mirror() -> str:
    """Where this system takes its Debian packages from."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)"]
    said = child.run(command, seconds=60.0, what="`apt-get indextargets`")
    for line in said.splitlines():
        origin, _, address = line.partition("|")
        if origin == "Debian" and "security" not in address:
            return address
    raise UsageError(
        "this system takes its packages from no Debian mirror that `apt-get indextargets` knows",
        hint="run `apt-get update` once, or name a mirror: --mirror URL",
    )


def _wheels(into: Path) -> None:
    platforms = [f"manylinux_2_{minor}_{ARCH}" for minor in (28, 27, 17)] + [f"manylinux2014_{ARCH}"]
    with tempfile.TemporaryDirectory() as work:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", work,
            *(part for platform in platforms for part in ("--platform", platform)),
            "--python-version", PYTHON, "--implementation", "cp", "--abi", f"cp{PYTHON.replace('.', '')}",
            "--abi", "abi3", "--abi", "none", f"onnxruntime=={onnxruntime.__version__}",
        ]  # fmt: skip
        child.run(
            command,
            seconds=_SECONDS,
            what=f"fetching the {ARCH} wheel of onnxruntime {onnxruntime.__version__}",
            hint="is the network reachable, and is there a wheel of that version for that processor?",
        )
        for wheel in Path(work).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(into)
