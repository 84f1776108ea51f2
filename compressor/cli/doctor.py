"""`compressor doctor`: is this installation able to work?"""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final, Literal

import typer

from compressor.cli.arguments import JsonOption
from compressor.cli.output import columns, emit_json, emit_rich, say
from compressor.errors import CompressorError

if TYPE_CHECKING:
    import torch

DISTRIBUTION: Final = "edge-compressor"
IMPORT_NAME: Final = "compressor"
_OLDEST_PYTHON: Final = (3, 11)
_LEAST_FREE_BYTES: Final = 200 * 1024**2
_NEEDED: Final = {
    "torch": "torch",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "safetensors": "safetensors",
    "jinja2": "jinja2",
}
"""Import name -> distribution."""


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis; a `problem` keeps the tool from working, a `note` does not."""

    what: str
    status: Literal["ok", "note", "problem"]
    detail: str


def doctor(json: JsonOption = False) -> None:
    """Check this installation: versions, devices, exporters, recipes, disk.

    Exits with 2 if something needed is missing.
    """
    from compressor.cli.progress import Terminal

    findings: list[Finding] = []
    say("examining this installation")
    with Terminal() as progress, progress.bar("examining", len(CHECKS)) as bar:
        for check in CHECKS:
            findings += check()
            bar.advance()
    if json:
        emit_json([asdict(finding) for finding in findings])
    else:
        emit_rich(columns(("", "what", "found"), [(f.status, f.what, f.detail) for f in findings]))
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(2)


def _python() -> Iterator[Finding]:
    from compressor.version import VERSION

    yield Finding("compressor", "ok", VERSION)
    enough = sys.version_info[:2] >= _OLDEST_PYTHON
    detail = f"{platform.python_version()} at {sys.executable}"
    yield Finding("python", "ok" if enough else "problem", detail if enough else f"{detail}; 3.11 is needed")


def _packages() -> Iterator[Finding]:
    for name, distribution in _NEEDED.items():
        try:
            importlib.import_module(name)
            yield Finding(distribution, "ok", metadata.version(distribution))
        except metadata.PackageNotFoundError:
            yield Finding(distribution, "note", "can be imported, but its version is not known")
        except Exception as error:  # a broken package may raise anything
            yield Finding(distribution, "problem", f"cannot be imported: {type(error).__name__}: {error}")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception:  # reported as a package already
        return
    from compressor.nn.accelerators import accelerator

    present = accelerator()
    if present is None:
        yield Finding("accelerator", "note", "none that PyTorch finds: everything runs on the CPU")
    else:
        for index in range(torch.accelerator.device_count()):
            yield _device(torch.device(present.type, index))
    yield Finding("threads", "ok", f"PyTorch {torch.get_num_threads()}, machine {os.cpu_count()}")


def _device(device: "torch.device") -> Finding:
    """Its name, and what it lacks."""
    from compressor.nn.accelerators import autocasts_to_bf16, device_name, has_float64

    abilities = {"float64": has_float64, "bfloat16 autocast": autocasts_to_bf16}
    lacks = [word for word, has in abilities.items() if not has(device)]
    detail = device_name(device) + (f"; it lacks {' and '.join(lacks)}" if lacks else "")
    return Finding(str(device), "ok", detail)


def _import_name() -> Iterator[Finding]:
    yield owners(metadata.packages_distributions().get(IMPORT_NAME, []))


def owners(distributions: list[str]) -> Finding:
    """Who owns the import name; another distribution has overwritten files of ours, or we of its."""
    others = sorted({name for name in distributions if name.lower().replace("_", "-") != DISTRIBUTION})
    if others:
        detail = f"{', '.join(others)} installs it too; use a virtual environment without it"
        return Finding(f"import name `{IMPORT_NAME}`", "problem", detail)
    detail = DISTRIBUTION if distributions else "a checkout"
    return Finding(f"import name `{IMPORT_NAME}`", "ok", detail)


def _exporters() -> Iterator[Finding]:
    from compressor.formats import EXPORTERS

    for name, exporter in EXPORTERS.items():
        try:
            exporter.load()
        except (ImportError, AttributeError) as error:
            yield Finding(f"format `{name}`", "problem", f"cannot be loaded ({error}); install the package again")
        else:
            yield Finding(f"format `{name}`", "ok", "its exporter loads; nothing was exported")


def _runtimes() -> Iterator[Finding]:
    from compressor.runtimes import environments

    for name, runtime in environments.RUNTIMES.items():
        found = environments.locate(name)
        where = "this environment" if found and not found.own else str(found.where) if found else ""
        detail = f"in {where}" if found else f"not installed, {runtime.purpose}; `compressor runtimes install {name}`"
        yield Finding(f"runtime {runtime.title}", "ok" if found else "note", detail)


def _recipes() -> Iterator[Finding]:
    from compressor.recipe import library, load, names

    known = names()
    for name in known:
        try:
            load(name)
        except CompressorError as error:
            yield Finding(f"recipe `{name}`", "problem", error.message)
    status: Literal["ok", "problem"] = "ok" if known else "problem"
    yield Finding("recipes", status, f"{len(known)} in {library()}")


def _temporary_folder() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("temporary folder", "problem", f"{folder} cannot be written: {error.strerror}")
        return
    detail = f"{folder}, {free / 1024**3:.1f} GiB free"
    yield Finding("temporary folder", "ok" if free >= _LEAST_FREE_BYTES else "problem", detail)


CHECKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    _python,
    _packages,
    _devices,
    _import_name,
    _exporters,
    _runtimes,
    _recipes,
    _temporary_folder,
)
