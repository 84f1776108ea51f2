"""Where the files of loaded modules are, and whose they are."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from compressor.pipeline import loaded_code


def loaded(monkeypatch, name, file):
    """A module that says that it is in a file."""
    module = ModuleType(name)
    module.__file__ = file
    monkeypatch.setitem(sys.modules, name, module)


def test_links_to_files_and_to_folders_are_followed(tmp_path, monkeypatch):
    real = tmp_path.resolve() / "real"
    real.mkdir()
    (real / "a.py").touch()
    (tmp_path / "folder").symlink_to(real)
    (tmp_path / "b.py").symlink_to(real / "a.py")
    for number, file in enumerate((real / "a.py", tmp_path / "folder" / "a.py", tmp_path / "b.py")):
        loaded(monkeypatch, f"linked_{number}", str(file))
    assert [file for file in loaded_code.loaded_files() if file.is_relative_to(tmp_path.resolve())] == [
        real / "a.py"
    ] * 3


def test_a_file_that_is_gone_and_a_module_without_one_are_no_matter(tmp_path, monkeypatch):
    loaded(monkeypatch, "gone", str(tmp_path / "gone.py"))
    loaded(monkeypatch, "none", None)
    assert tmp_path.resolve() / "gone.py" in set(loaded_code.loaded_files())


def test_all_files_are_those_that_python_resolves():
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    expected = {Path(name).resolve() for name in names if isinstance(name, str) and os.path.isabs(name)}  # noqa: PTH117
    assert expected <= set(loaded_code.loaded_files())


@pytest.mark.parametrize("module", ["os", "torch", "compressor.files", "exporters.onnx"])
def test_python_packages_and_this_tool_are_not_the_users(module):
    __import__(module)
    assert not loaded_code.is_of_user(Path(sys.modules[module].__file__).resolve())


def test_other_files_are_the_users(tmp_path):
    assert loaded_code.is_of_user(tmp_path / "task.py")
    assert loaded_code.is_of_user(Path(__file__).resolve())


def test_the_tools_files_have_size_and_time():
    files = dict(loaded_code.tool_files())
    here = Path(loaded_code.__file__).resolve()
    assert files[str(here)] == f"{here.stat().st_size} {here.stat().st_mtime_ns}"
    assert any(name.endswith(os.sep + os.path.join("exporters", "onnx.py")) for name in files)  # noqa: PTH118
