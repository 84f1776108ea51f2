"""Debian packages of another suite or processor, verified and unpacked into a folder; nothing is installed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.errors import UsageError
from compressor.runtimes import child
from compressor.runtimes.emulation.machine import DEBIAN_ARCH, OLDEST_QEMU, SETUP, folder

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITE: Final = "trixie"
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS: Final = 1800.0


def own_arch() -> str:
    """Debian's name of this machine's processor; raises `UsageError` on another system."""
    _need("dpkg")
    what = "`dpkg --print-architecture`"
    return child.run(["dpkg", "--print-architecture"], seconds=30.0, what=what).strip()


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise UsageError(
            f"there is no `{program}` here, with which Debian packages are fetched and unpacked",
            hint=f"on another system, install qemu-user {OLDEST_QEMU} or newer and put a root file system of Debian "
            f"{SUITE} with Python for {DEBIAN_ARCH} into {folder() / 'root'}; then `{SETUP}` gets the wheels alone",
        )


def unpack(into: Path, mirror: str | None, arch: str, packages: Sequence[str], *, alone: bool) -> None:
    """Fetch packages for a processor and unpack them.

    Args:
        into: A folder, which becomes the root of a file system.
        mirror: Address of a Debian mirror; by default that from which this system takes its packages.
        arch: Debian's name of the processor.
        packages: What to fetch.
        alone: Without what they depend on.

    Raises:
        UsageError: This system has no `apt-get`, or takes its packages from no Debian mirror.
        ExportError: Something could not be fetched; with the program's last lines.
    """
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
    (work / "sources.list").write_text(f"deb {signed}{mirror} {SUITE} main\n")
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
