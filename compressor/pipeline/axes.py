"""The open axes of a task's model for the report: what was found, and what is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.report import OpenAxes, TensorAxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.task.calls import Calls
    from compressor.task.guard import GuardedTask


def open_axes(task: GuardedTask) -> OpenAxes:
    """The axes of the whole model, then those of each module that is a file of its own."""
    calls = task.learned()
    tensors = [*_tensors(calls, "", declared=(bool(task.task.inputs), bool(task.task.outputs)))]
    for name, submodule in task.submodules.items():
        tensors += _tensors(submodule.calls, name, declared=(False, False))
    return OpenAxes(sizes=dict(calls.sizes), tensors=tuple(tensors))


def _tensors(calls: Calls, module: str, declared: tuple[bool, bool]) -> Iterator[TensorAxes]:
    for enters, side, said in zip((True, False), (calls.inputs, calls.outputs), declared, strict=True):
        for name, axes in side.items():
            yield TensorAxes(name=name, enters=enters, axes=dict(axes), declared=said, module=module)
