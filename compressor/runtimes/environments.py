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
from compressor.files import cache_folder, writing
from compressor.files.staged import locked
from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARK = "installed.json"
_INSTALL_SECONDS = 1800
_TRY_SECONDS = 120


@dataclass(frozen=True)
class Runtime:
    """A runtime, or a converter."""

    name: str
    """As in `compressor runtimes install NAME`, and the extra of this package."""
    title: str
    modules: tuple[str, ...]
    """Import names, all of which an environment must have."""
    requirements: tuple[str, ...]
    """What an environment of its own gets: exact versions, and everything that they need, for nothing else follows."""
    purpose: str
    dependencies: bool = False
    """Whether what the requirements name as dependencies is installed too."""
    shares_torch: bool = False
    """Whether its environment sees the packages of this one behind its own: PyTorch is gigabytes, and a program is
    best read by the version that saved it. Where its pins want another PyTorch, it gets that as its own."""


_NUMPY = "numpy>=2,<3"

RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", "ONNX Runtime", ("onnxruntime",), (), "`format: onnx` and `format: ort`"),
        Runtime("c", "C", ("ctypes", "numpy"), (), "`format: c`, with this machine's C compiler"),
        # Without its dependency `openvino-telemetry`, which reports use to its makers; it runs as well without.
        Runtime("openvino", "OpenVINO", ("openvino",), ("openvino==2026.4.1", _NUMPY), "checks ONNX files"),
        Runtime("tract", "tract", ("tract",), ("tract==0.23.9", _NUMPY), "checks ONNX files"),
        # Never its console scripts: these install another package, which reports use, as soon as they are imported.
        Runtime("mnn", "MNN", ("MNN", "_tools"), ("MNN==3.6.1", _NUMPY), "`format: mnn`"),
        # Without dependencies of pnnx: only its program is used, which holds its own libtorch.
        Runtime("ncnn", "ncnn", ("ncnn", "pnnx"), ("ncnn==1.0.20261020", "pnnx==20261020", _NUMPY), "`format: ncnn`"),
        Runtime(
            "litert",
            "LiteRT",
            ("ai_edge_litert", "litert_torch", "ai_edge_quantizer"),
            ("litert-torch==0.10.0", "ai-edge-litert==2.3.0", "ai-edge-quantizer==0.10.0"),
            "`format: litert`",
            dependencies=True,
            shares_torch=True,
        ),
        Runtime(
            "executorch",
            "ExecuTorch",
            ("executorch",),
            ("executorch==1.5.1",),
            "`format: executorch`",
            dependencies=True,
            shares_torch=True,
        ),
    )
}


@dataclass(frozen=True)
class Found:
    """Where a runtime is."""

    runtime: Runtime
    python: Path
    """The interpreter that imports it."""
    own: bool
    """Whether that is an environment of its own."""


def known(name: str) -> Runtime:
    """The runtime of that name; raises `UsageError` if there is none."""
    try:
        return RUNTIMES[name]
    except KeyError:
        raise UsageError(f"unknown runtime `{name}`", hint=f"one of {', '.join(RUNTIMES)}") from None


def folder(runtime: Runtime) -> Path:
    """Where an environment of its own lies; another folder for other versions."""
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
    if _importable(runtime.modules):
        return Found(runtime, Path(sys.executable), own=False)
    made = folder(runtime)
    if (made / _MARK).is_file():
        return Found(runtime, _python(made), own=True)
    return None


def need(name: str) -> Found:
    """Where a runtime is; raises `ExportError` with the ways to install it if it is not installed."""
    found = locate(name)
    if found is None:
        raise ExportError(
            f"{known(name).title} is not installed",
            hint=f"`compressor runtimes install {name}` puts it into an environment of its own, "
            f"`pip install 'edge-compressor[{name}]'` into this one",
        )
    return found


def install(name: str) -> Found:
    """Make an environment of its own for a runtime, in the user's cache folder; one that is there is replaced.

    Raises:
        UsageError: There is no such runtime, or it comes with this package.
        ExportError: It cannot be installed; the message holds pip's last lines.
        OutputError: The folder cannot be written, or another installation of it is under way.
    """
    runtime = known(name)
    if not runtime.requirements:
        raise UsageError(f"{runtime.title} comes with this package", hint="there is nothing to install")
    made = folder(runtime)
    lock = made.with_name(f"{made.name}.lock")
    with writing(lock):
        lock.mkdir(parents=True, exist_ok=True)
    with locked(lock, by="installation"):
        _install(runtime, made)
    return Found(runtime, _python(made), own=True)


def _install(runtime: Runtime, made: Path) -> None:
    with writing(made):
        shutil.rmtree(made, ignore_errors=True)
        venv.create(made, with_pip=False, symlinks=True)
        shared = _shared_packages() if runtime.shares_torch else None
        if shared is not None:
            own = Path(sysconfig.get_path("purelib", vars={"base": str(made), "platbase": str(made)}))
            (own / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")
    try:
        child.run(
            [
                *_pip(),
                "--python",
                str(_python(made)),
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *([] if runtime.dependencies else ["--no-deps"]),
                *runtime.requirements,
            ],
            seconds=_INSTALL_SECONDS,
            what=f"the installation of {runtime.title}",
            hint=f"it needs a package index that has {', '.join(runtime.requirements)} for this Python and processor",
        )
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
    """The versions of a runtime's distributions, asked of the interpreter that has it; raises `ExportError`."""
    names = [requirement.split("==")[0] for requirement in found.runtime.requirements if "==" in requirement]
    script = f"{_try(found.runtime.modules)}\nfrom importlib import metadata\n" + (
        f"print(', '.join(f'{{name}} {{metadata.version(name)}}' for name in {names or [found.runtime.name]!r}))"
    )
    said = child.run(
        [str(found.python), "-P", "-c", script], seconds=_TRY_SECONDS, what=f"{found.runtime.title}", hint=_again(found)
    )
    return said.strip().splitlines()[-1]


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


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip"]


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@cache
def _importable(modules: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in modules)
