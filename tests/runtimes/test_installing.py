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
