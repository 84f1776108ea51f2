"""Which installer is taken, and what is said if there is none."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from compressor.errors import ExportError
from compressor.runtimes import installing

PYTHON = Path("/somewhere/bin/python")


def without_pip(monkeypatch, programs):
    """An environment as pipx and uv make it, with these programs on the path."""
    own = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else own(name))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)


def test_pip_of_this_environment_comes_first():
    assert installing.installer(PYTHON)[:5] == [sys.executable, "-m", "pip", "--python", str(PYTHON)]


@pytest.mark.parametrize(
    ("programs", "command"),
    [
        (("uv", "pip3"), ["/usr/bin/uv", "pip", "install", "--python", str(PYTHON)]),
        (("pip3",), ["/usr/bin/pip3", "--python", str(PYTHON), "install", "--disable-pip-version-check"]),
    ],
)
def test_without_it_uv_is_taken_and_then_a_pip_of_the_system(monkeypatch, programs, command):
    without_pip(monkeypatch, programs)
    assert installing.installer(PYTHON) == command


def test_without_any_the_remedy_is_named(monkeypatch):
    without_pip(monkeypatch, ())
    with pytest.raises(ExportError, match="neither pip in this environment nor a `uv` or `pip` on the path") as caught:
        installing.installer(PYTHON)
    assert "install uv" in caught.value.hint
    with pytest.raises(ExportError, match="which is not on the path"):
        installing.install_npm(PYTHON, ["x@1"], title="X")


@pytest.mark.parametrize(
    ("programs", "platform"),
    [
        (("pip",), ["--platform", "manylinux_2_17_aarch64"]),
        (("uv",), ["--python-platform", "aarch64-manylinux_2_28"]),
    ],
)
def test_wheels_of_another_processor_are_asked_of_either_installer(monkeypatch, programs, platform):
    without_pip(monkeypatch, programs)
    commands = []
    monkeypatch.setattr(installing.child, "run", lambda command, **_: commands.append(command))
    installing.install_for_machine(Path("into"), ["x==1"], machine="aarch64", python="3.13", title="X")
    (command,) = commands
    assert command[0] == f"/usr/bin/{programs[0]}"
    assert command[-1] == "x==1"
    assert ["--target", "into"] in [command[at : at + 2] for at in range(len(command))]
    assert platform in [command[at : at + 2] for at in range(len(command))]
