"""ONNX Runtime for another processor, under emulation: whether a file gives the same numbers there, never how fast.

The emulated machine is a folder: `qemu-user`'s one program, a root file system with Python and its libraries out of
Debian packages that are unpacked and not installed, and the wheels for that processor. No part of it needs root.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from compressor.errors import ExportError, UsageError
from compressor.files import cache_folder, writing
from compressor.progress import Progress, Silent
from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

ARCH = "aarch64"
CPU = "cortex-a76"
_DEBIAN_ARCH = "arm64"
_SUITE = "trixie"
_PYTHON = "3.13"
"""Of that suite."""
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libgomp1", "libstdc++6")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_OLDEST_QEMU = 10
"""Version 7.2 crashes when it loads ONNX Runtime; 10.0 was tried with 90 files."""
_FETCH_SECONDS, _SECONDS = 1800.0, 1200.0
_REMOTE = Path(__file__).with_name("remote_script.py")
_SILENT = Silent()
SETUP = "compressor verify --arch aarch64 --setup"


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


@dataclass(frozen=True)
class Job:
    """A file and what it is given."""

    model: Path
    inputs: Sequence[NDArray[Any]]


Outcome = list["NDArray[Any]"] | str
"""What a file gave, or why it gave nothing."""


def folder() -> Path:
    """Where the emulated machine is kept, in the user's cache folder."""
    return cache_folder() / ARCH


def find() -> Machine:
    """The emulated machine.

    Raises:
        UsageError: Parts of it are missing or do not fit; the message names each, the hint the command that gets them.
    """
    place, missing = folder(), []
    qemu, version, fault = _qemu()
    if fault:
        missing.append(fault)
    if not (place / "root" / "usr" / "bin" / f"python{_PYTHON}").is_file():
        missing.append(f"a root file system with Python {_PYTHON} for {ARCH}, in {place / 'root'}")
    wanted, there = onnxruntime.__version__, _wheel_version()
    if there is None:
        missing.append(f"the {ARCH} wheels of onnxruntime {wanted} and NumPy, in {place / 'packages'}")
    elif there != wanted:
        missing.append(f"the {ARCH} wheel of onnxruntime {wanted}, which runs here; that in {place} is {there}")
    if missing or qemu is None:
        raise UsageError(
            f"{ARCH} cannot be emulated here; missing: " + "; ".join(missing),
            hint=f"`{SETUP}` fetches what is missing (some 110 MB of Debian packages and wheels) into {place}",
        )
    return Machine(qemu, version, place / "root", place / "packages")


def _qemu() -> tuple[Path | None, str, str]:
    """The emulator and its version, or what is wrong."""
    found = [folder() / "qemu" / f"qemu-{ARCH}"]
    names = (f"qemu-{ARCH}", f"qemu-{ARCH}-static")
    found += [Path(place) for name in names if (place := shutil.which(name)) is not None]
    old = ""
    for path in found:
        if path.is_file():
            version = _version(path)
            if int(version.split(".", 1)[0]) >= _OLDEST_QEMU:
                return path, version, ""
            old = f"; {path} is {version}, and 7.2 was seen to crash when it loads ONNX Runtime"
    return None, "", f"qemu-{ARCH}, version {_OLDEST_QEMU} or newer (of Debian's package qemu-user){old}"


def _version(qemu: Path) -> str:
    said = child.run([str(qemu), "--version"], seconds=30.0, what=f"{qemu} --version", hint=f"`{SETUP}` fetches one")
    found = re.search(r"version (\d+(?:\.\d+)*)", said)
    return found[1] if found else "0"


def _wheel_version() -> str | None:
    for path in (folder() / "packages").glob("onnxruntime-*.dist-info"):
        return path.name.removeprefix("onnxruntime-").removesuffix(".dist-info")
    return None


# --- setting it up ---


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
        if _qemu()[0] is None:
            _replaced(place / "qemu", lambda into: _emulator(into, mirror))
        bar.advance(note="qemu")
        if not (place / "root" / "usr" / "bin" / f"python{_PYTHON}").is_file():
            _replaced(place / "root", lambda into: _unpack(into, mirror, _DEBIAN_ARCH, _PACKAGES, alone=False))
        bar.advance(note="root file system")
        if _wheel_version() != onnxruntime.__version__:
            _replaced(place / "packages", _wheels)
        bar.advance(note="wheels")
    return find()


def _replaced(path: Path, make: Any) -> None:
    """Let `make` fill a folder that then takes the place of `path`: never half of it."""
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
            hint=f"on another system, install qemu-user {_OLDEST_QEMU} or newer and lay a root file system of Debian "
            f"{_SUITE} with Python for {_DEBIAN_ARCH} into {folder() / 'root'}; then `{SETUP}` gets the wheels alone",
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
            child.run(["dpkg-deb", "-x", str(archive), str(into)], seconds=_FETCH_SECONDS, what=what)
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
        seconds=_FETCH_SECONDS, what=f"fetching the lists of packages for {arch}", hint=hint,
    )  # fmt: skip
    if alone:
        command = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(work / "cache/archives"), *apt, "download"]
    else:
        command = [*apt, "install", "--yes", "--download-only", "--no-install-recommends"]
    what = f"fetching {', '.join(packages)} for {arch}"
    child.run([*command, *packages], seconds=_FETCH_SECONDS, what=what, hint=hint)
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
            "--python-version", _PYTHON, "--implementation", "cp", "--abi", f"cp{_PYTHON.replace('.', '')}",
            "--abi", "abi3", "--abi", "none", f"onnxruntime=={onnxruntime.__version__}",
        ]  # fmt: skip
        child.run(
            command,
            seconds=_FETCH_SECONDS,
            what=f"fetching the {ARCH} wheel of onnxruntime {onnxruntime.__version__}",
            hint="is the network reachable, and is there a wheel of that version for that processor?",
        )
        for wheel in Path(work).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(into)


# --- running files ---


def run(machine: Machine, jobs: Sequence[Job], progress: Progress = _SILENT) -> tuple[list[Outcome], str]:
    """Run files on their inputs on the emulated machine.

    Where a file crashes it, those behind are run by a new one.

    Returns:
        What each job came to, and the runtime under emulation in words.

    Raises:
        ExportError: The machine does not even start.
    """
    runtime = "no ONNX Runtime"
    with tempfile.TemporaryDirectory() as work, progress.bar(f"running on emulated {ARCH}", len(jobs)) as bar:
        written = [_written(Path(work), index, job) for index, job in enumerate(jobs)]
        listing = Path(work) / "jobs.json"
        listing.write_text(json.dumps(written))
        done = 0
        while True:
            try:
                said = child.run(_command(machine, listing), seconds=_SECONDS, what=f"ONNX Runtime on emulated {ARCH}")
                runtime = json.loads(said.strip().splitlines()[-1])["runtime"]
            except ExportError as error:
                crashed = next((job for job in written if not _over(job)), None)
                started = crashed is not None and f"running {crashed['model']}" in error.message
                if crashed is None or not started:
                    raise
                Path(crashed["outputs"] + ".error").write_text(error.message)
            over = sum(map(_over, written))
            bar.advance(over - done)
            done = over
            if over == len(written):
                return [_outcome(job) for job in written], runtime


def _written(work: Path, index: int, job: Job) -> dict[str, str]:
    np.savez(work / f"{index}.inputs.npz", *job.inputs)
    return {
        "model": str(job.model.resolve()),
        "inputs": str(work / f"{index}.inputs.npz"),
        "outputs": str(work / f"{index}.outputs.npz"),
    }


def _command(machine: Machine, listing: Path) -> list[str]:
    environment = {"PYTHONPATH": str(machine.packages), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return [
        str(machine.qemu), "-L", str(machine.root), "-cpu", CPU,
        *(part for name, value in environment.items() for part in ("-E", f"{name}={value}")),
        # -P keeps this package's folder off the import path, where its module names could hide others.
        str(machine.root / "usr" / "bin" / f"python{_PYTHON}"), "-P", str(_REMOTE), "outputs", str(listing),
    ]  # fmt: skip


def _over(job: Mapping[str, str]) -> bool:
    return Path(job["outputs"]).exists() or Path(job["outputs"] + ".error").exists()


def _outcome(job: Mapping[str, str]) -> Outcome:
    error = Path(job["outputs"] + ".error")
    if error.exists():
        return error.read_text()
    with np.load(job["outputs"]) as arrays:
        return [arrays[name] for name in arrays.files]
