"""Loads the task of a Python file."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import Place, TaskError
from compressor.task.contract import Task
from compressor.task.files_read import noting_files
from compressor.task.guard import GuardedTask
from compressor.task.places import blamed
from compressor.task.spec import split_spec

if TYPE_CHECKING:
    from types import ModuleType


def load(spec: str) -> GuardedTask:
    """Load the task of `FILE.py` or `FILE.py:NAME`; without a name, the first task that the file defines.

    The file is the only code of the user's that runs. Its folder is put on the import path, as for a script.
    """
    opened: set[str] = set()
    with noting_files(opened):
        task = _loaded(spec)
    task.opened |= opened
    return task


def _loaded(spec: str) -> GuardedTask:
    file, name = split_spec(spec)
    module = _import(file)
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    }
    if name and name not in found:
        near = difflib.get_close_matches(name, found, 1) or sorted(found)
        raise TaskError(
            f"{file} has no task named `{name}`",
            hint=f"it has {', '.join(f'`{n}`' for n in near)}" if near else "subclass `compressor.Task` in it",
            place=Place(file),
        )
    chosen = found[name] if name else next((c for c in found.values() if not inspect.isabstract(c)), None)
    chosen = chosen or next(iter(found.values()), None)
    if chosen is None:
        raise TaskError(f"{file} defines no task", hint="subclass `compressor.Task` in it", place=Place(file))
    missing = sorted(getattr(chosen, "__abstractmethods__", ()))
    if missing:
        raise TaskError(
            f"task `{chosen.__name__}` has no {', '.join(f'`{m}`' for m in missing)}",
            hint="a task needs `model`, `example`, `batches`, `loss` and `evaluate`",
            place=Place(file, inspect.getsourcelines(chosen)[1]),
        )
    with blamed(f"`{chosen.__name__}()`", file):
        return GuardedTask(chosen(), file)


def _import(file: str) -> ModuleType:
    path = Path(file)
    if not path.is_file():
        raise TaskError(f"no task file at {file}", hint="give --task FILE.py or FILE.py:NAME")
    if path.suffix != ".py":
        raise TaskError(f"{file} is not a Python file", hint="a task is a .py file with a `compressor.Task` in it")
    name = f"_compressor_task_{abs(hash(path.resolve()))}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise TaskError(f"{file} cannot be imported", place=Place(file))
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with blamed("task file", file):
        try:
            specification.loader.exec_module(module)
        except SyntaxError as error:
            where = Place(file, error.lineno, error.offset, (error.text or "").rstrip("\n"))
            raise TaskError(f"task file is not valid Python: {error.msg}", place=where) from error
    return module
