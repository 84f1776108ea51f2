"""Puts packages into an environment or a folder: by pip or uv, whichever is there, or by npm."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.files import writing
from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 1800


def install_python(python: Path, requirements: Sequence[str], *, dependencies: bool, title: str) -> None:
    """Install distributions into the environment of an interpreter.

    Args:
        python: The interpreter, whose environment needs no installer of its own.
        requirements: What is installed.
        dependencies: Whether what these name as dependencies is installed too.
        title: What they are, for the message.

    Raises:
        ExportError: There is no installer, or it fails; the message holds its last lines.
    """
    child.run(
        [*installer(python), "--quiet", *([] if dependencies else ["--no-deps"]), *requirements],
        seconds=_SECONDS,
        what=f"the installation of {title}",
        hint=f"it needs a package index that has {', '.join(requirements)} for this Python and processor",
    )


def install_for_machine(into: Path, requirements: Sequence[str], *, machine: str, python: str, title: str) -> None:
    """Put the wheels of another processor into a folder; nothing of them is run.

    Args:
        into: The folder.
        requirements: What is installed, with all that it depends on.
        machine: Of Linux, such as `aarch64`.
        python: Version of the interpreter that will import them, such as `3.13`.
        title: What they are, for the message.

    Raises:
        ExportError: There is no installer, or it fails; the message holds its last lines.
    """
    command = installer(Path(sys.executable))
    if Path(command[0]).stem == "uv":
        platform = ["--python-platform", f"{machine}-manylinux_2_28"]
    else:
        names = [f"manylinux_2_{minor}_{machine}" for minor in (28, 27, 17)] + [f"manylinux2014_{machine}"]
        abis = (f"cp{python.replace('.', '')}", "abi3", "none")
        platform = [part for name in names for part in ("--platform", name)]
        platform += ["--implementation", "cp", *(part for abi in abis for part in ("--abi", abi))]
    child.run(
        [*command, "--quiet", "--only-binary", ":all:", "--target", str(into), "--python-version", python, *platform,
         *requirements],
        seconds=_SECONDS,
        what=f"the installation of {title}",
        hint=f"is the network reachable, and are there wheels of {', '.join(requirements)} for {machine}?",
    )  # fmt: skip


def installer(python: Path) -> list[str]:
    """The command that installs into the environment of `python`: this environment's pip, uv, or a pip of the system.

    Raises:
        ExportError: There is none.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--python", str(python), "install", "--disable-pip-version-check"]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--python", str(python)]
    if (pip := shutil.which("pip") or shutil.which("pip3")) is not None:
        return [pip, "--python", str(python), "install", "--disable-pip-version-check"]
    raise ExportError(
        "there is neither pip in this environment nor a `uv` or `pip` on the path, so nothing can be installed",
        hint=f"install uv, or `{sys.executable} -m ensurepip`; environments of pipx and uv have no pip of their own",
    )


def install_npm(folder: Path, packages: Sequence[str], *, title: str) -> None:
    """Install packages of npm into a folder; nothing that they bring is run.

    Raises:
        ExportError: npm is missing or fails.
        OutputError: The folder cannot be written.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(f"{title} comes from npm, which is not on the path", hint="install Node.js")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"private": True}), encoding="utf-8")
    child.run(
        [npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--save", *packages],
        seconds=_SECONDS,
        what=f"the installation of {title}",
        hint=f"it needs an npm registry that has {', '.join(packages)}",
    )
