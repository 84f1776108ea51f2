"""Runtimes and converters of phones: which package each is, and the Python interpreter that can import it.

Their packages pin what clashes with ours or with each other, so a runtime is used from this Python environment if it
is installed, or else from an environment of its own, which `compressor runtimes install NAME` makes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
import sysconfig
import venv
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import ExportError, UsageError
from compressor.files import cache_folder, json_object, read_text, writing
from compressor.files.staged import locked
from compressor.runtimes import c_compiler, child
from compressor.runtimes.catalogue import RUNTIMES, Runtime, known
from compressor.runtimes.installing import install_npm, install_python
from compressor.runtimes.workers import chromium

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RUNTIMES", "Found", "Runtime", "folder", "install", "known", "locate", "need", "npm_packages", "versions"]

_MARK = "installed.json"
_TRY_SECONDS = 120
_NO_BROWSER = "there is no Chromium or Chrome on the path, in which ONNX Runtime Web runs"


@dataclass(frozen=True)
class Found:
    """Where a runtime is."""

    runtime: Runtime
    python: Path
    """The interpreter that imports it."""
    own: bool
    """Whether that is an environment of its own."""
    packages: Path | None = None
    """Where its packages of npm are."""

    @property
    def where(self) -> Path:
        """What a person looks for: the interpreter, or the folder of packages."""
        return self.packages or self.python

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment in which its worker is started."""
        return {} if self.packages is None else {"COMPRESSOR_WEB": str(self.packages)}


def folder(runtime: Runtime) -> Path:
    """Where an environment of its own lies; another folder for other versions."""
    if runtime.npm:
        return cache_folder() / "runtimes" / "_".join(package.replace("@", "-") for package in runtime.npm)
    versions = "_".join(requirement.replace("==", "-") for requirement in runtime.requirements if "==" in requirement)
    shared = _shared_packages() if runtime.shares_torch else None
    if shared is not None:  # an environment that leans on another one is of no use beside a third
        mark = hashlib.sha256(f"{sys.version_info[:2]} {shared} {metadata.version('torch')}".encode()).hexdigest()[:8]
        versions += f"_torch-{metadata.version('torch')}-{mark}"
    return cache_folder() / "runtimes" / (versions or runtime.name)


def _shared_packages() -> Path | None:
    """The folder that PyTorch lies in, and the packages that it needs."""
    found = importlib.util.find_spec("torch")
    return Path(found.origin).parent.parent if found is not None and found.origin is not None else None


def locate(name: str) -> Found | None:
    """Where a runtime is, this interpreter's own environment first; None if not installed."""
    runtime = known(name)
    made = folder(runtime)
    if runtime.npm:
        there = (made / _MARK).is_file() and chromium.find() is not None
        return Found(runtime, Path(sys.executable), own=True, packages=made) if there else None
    if _importable(runtime.modules):
        return Found(runtime, Path(sys.executable), own=False)
    if (made / _MARK).is_file():
        return Found(runtime, _python(made), own=True)
    return None


def need(name: str) -> Found:
    """Where a runtime is; raises `ExportError` with the ways to install it if it is not installed."""
    found = locate(name)
    if found is None:
        into = f", `pip install 'edge-compressor[{name}]'` into this one" if known(name).requirements else ""
        raise ExportError(
            f"{known(name).title} is not installed" if chromium.find() or into else _NO_BROWSER,
            hint=f"`compressor runtimes install {name}` puts it into an environment of its own{into}",
        )
    return found


def npm_packages(name: str) -> Path:
    """The `node_modules` of a runtime, whether or not this machine has a browser; raises `ExportError`."""
    made = folder(known(name))
    if not (made / _MARK).is_file():
        raise ExportError(f"{known(name).title} is not installed", hint=f"compressor runtimes install {name}")
    return made / "node_modules"


def install(name: str) -> Found:
    """Make an environment of its own for a runtime, in the user's cache folder; one that is there is replaced.

    Raises:
        UsageError: There is no such runtime, or it comes with this package.
        ExportError: It cannot be installed; the message holds pip's last lines.
        OutputError: The folder cannot be written, or another installation of it is under way.
    """
    runtime = known(name)
    if not runtime.requirements and not runtime.npm:
        raise UsageError(f"{runtime.title} comes with this package", hint="there is nothing to install")
    made = folder(runtime)
    lock = made.with_name(f"{made.name}.lock")
    with writing(lock):
        lock.mkdir(parents=True, exist_ok=True)
    with locked(lock, by="installation"):
        if runtime.npm:
            return _install_for_browser(runtime, made)
        _install(runtime, made)
    return Found(runtime, _python(made), own=True)


def _install_for_browser(runtime: Runtime, made: Path) -> Found:
    with writing(made):
        shutil.rmtree(made, ignore_errors=True)
    try:
        install_npm(made, runtime.npm, title=runtime.title)
        with writing(made):
            (made / _MARK).write_text(json.dumps(list(runtime.npm)), encoding="utf-8")
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return Found(runtime, Path(sys.executable), own=True, packages=made)


def _install(runtime: Runtime, made: Path) -> None:
    with writing(made):
        shutil.rmtree(made, ignore_errors=True)
        venv.create(made, with_pip=False, symlinks=True)
        shared = _shared_packages() if runtime.shares_torch else None
        if shared is not None:
            own = Path(sysconfig.get_path("purelib", vars={"base": str(made), "platbase": str(made)}))
            (own / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")
    try:
        install_python(_python(made), runtime.requirements, dependencies=runtime.dependencies, title=runtime.title)
        child.run(
            [str(_python(made)), "-P", "-c", _try(runtime.modules)],
            seconds=_TRY_SECONDS,
            what=f"{runtime.title} in its new environment",
        )
        with writing(made):
            (made / _MARK).write_text(json.dumps(list(runtime.requirements)), encoding="utf-8")
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def versions(found: Found) -> str:
    """The versions of a runtime's distributions, asked of the interpreter that has it, or that of the C compiler.

    Raises:
        ExportError: It does not work: something is missing, or does not start.
    """
    if found.packages is not None:
        return ", ".join(_npm_version(found.packages, package) for package in found.runtime.npm)
    if found.runtime.compiles:
        return c_compiler.version()
    names = [requirement.split("==")[0] for requirement in found.runtime.requirements if "==" in requirement]
    script = f"{_try(found.runtime.modules)}\nfrom importlib import metadata\n" + (
        f"print(', '.join(f'{{name}} {{metadata.version(name)}}' for name in {names or [found.runtime.name]!r}))"
    )
    said = child.run(
        [str(found.python), "-P", "-c", script], seconds=_TRY_SECONDS, what=f"{found.runtime.title}", hint=_again(found)
    )
    return said.strip().splitlines()[-1]


def _npm_version(folder: Path, package: str) -> str:
    name = package.rpartition("@")[0]
    described = json_object(read_text(folder / "node_modules" / name / "package.json", ExportError)) or {}
    return f"{name} {described.get('version', 'of an unknown version')}"


def _again(found: Found) -> str:
    return f"`compressor runtimes install {found.runtime.name}` makes its environment again" if found.own else ""


def _try(modules: Sequence[str]) -> str:
    """Python that fails if a module is missing; `pnnx` is not imported, for it wants PyTorch and is a program."""
    return "\n".join(
        f"import importlib.util; assert importlib.util.find_spec({name!r}), 'no module {name}'"
        if name in ("pnnx", "_tools")
        else f"import {name}"
        for name in modules
    )


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@cache
def _importable(modules: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in modules)
