"""Which task an exported file belongs to: the given one, or that of the module which the file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor import checkpoint
from compressor.errors import UsageError
from compressor.task.signature import flatten_calls
from compressor.task.submodule_tasks import SubmoduleTask
from compressor.task.submodules import paths_of

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.task.contract import Task
    from compressor.task.guard import GuardedTask

_ORIGINAL = "original"


def task_of_file(task: GuardedTask, path: Path) -> Task:
    """The task whose examples a file takes.

    A file of a module is known by its name, such as `model.decoder.onnx`; what the other modules hand to it comes from
    the compressed model if its weights lie beside the file, from the task's own otherwise.

    Raises:
        UsageError: The task has several modules, and the file's name has none of their names.
    """
    modules = paths_of(task.task.modules)
    if not modules:
        return task
    words = path.name.split(".")
    name = next((name for name in modules if name in words), None)
    if name is None:
        raise UsageError(
            f"{path.name} does not say which of the task's modules it holds: {', '.join(modules)}",
            hint=f"keep the name that it was exported under, such as `model.{next(iter(modules))}.onnx`",
        )
    model = task.model()
    if (path.parent / checkpoint.RECORD_FILE).is_file() and _ORIGINAL not in words:
        model = flatten_calls(checkpoint.load(path.parent, task), task.learned().signature)
    return SubmoduleTask(task, model.eval(), name, task.submodules[name])
