"""Each module of a model as a task of its own, and the model with files in place of its modules."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.nn.seams import seam_of, unmark
from compressor.task.axes import BATCH, TIME
from compressor.task.calls import run
from compressor.task.forwards import TorchForward
from compressor.task.module_calls import watched, with_stand_ins
from compressor.task.signature import Call, flatten_calls, structured
from compressor.task.sizes import example_at
from compressor.task.view import TaskView, ViewedBatches, adapted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor

    from compressor.task.contract import Evaluation, Forward, Inputs, Task
    from compressor.task.submodules import Submodule
    from compressor.task.view import Batch

_CPU = torch.device("cpu")


class SubmoduleTask(TaskView):
    """One module of a model as a task of its own: its inputs are those that the model hands it."""

    def __init__(self, task: Task, model: nn.Module, name: str, submodule: Submodule) -> None:
        """Show one module.

        Args:
            task: Of the whole model.
            model: The whole model, in evaluation mode, on the CPU; it is run and not changed.
            name: Of the module in the task.
            submodule: What is known of it.
        """
        super().__init__(task)
        self.name, self._whole, self._path = name, model, submodule.path
        self._signature = submodule.calls.signature
        self.inputs, self.outputs = submodule.calls.inputs, submodule.calls.outputs
        self.ranges = submodule.calls.ranges

    def adapt(self, inputs: Inputs) -> Inputs:
        """What the module is given in its last call, for inputs of the user's task."""
        whole = TorchForward(self._whole, _CPU)
        return self._given(partial(whole, *adapted(self.task, inputs)))[-1]

    def model(self) -> nn.Module:
        """A copy of the module that takes and gives flat tensors."""
        module = copy.deepcopy(self._whole.get_submodule(self._path))
        unmark(module)
        return flatten_calls(module, self._signature)

    def example(self, batch: int, length: int, **further: int) -> Inputs:
        """What the module is given in its last call for the task's example."""
        call = Call(*example_at(self.task, batch, length, further))
        sizes = {BATCH: batch, TIME: length, **further}
        return self._given(lambda: run(self._whole, call, sizes))[-1]

    def batches(self, generator: torch.Generator) -> Iterable[Batch]:
        """What the module is given in every call for the task's batches."""
        return ViewedBatches(self.task.batches(generator), self._of_batches)

    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's metric with `forward` in place of this module, all others in PyTorch."""
        return self.task.evaluate(together({self: forward}))

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `validate`, in the same way."""
        return self.task.validate(together({self: forward}))

    def in_place(self, forward: Forward) -> tuple[nn.Module, str, Callable[..., Any]]:
        """The whole model, the module's name in it, and `forward` called as that module is."""
        seam = seam_of(self._whole.get_submodule(self._path))
        signature = self._signature

        def narrowed(*tensors: Tensor) -> Any:
            return forward(*(tensors if seam is None else seam.narrow(tensors)))

        return self._whole, self._path, structured(signature, narrowed)

    def _of_batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        whole = TorchForward(self._whole, _CPU)
        for inputs, target in batches:
            for tensors in self._given(partial(whole, *inputs)):
                yield tensors, target

    def _given(self, run_whole: Callable[[], Any]) -> list[Inputs]:
        """The tensors of every call of the module while the whole model runs."""
        with watched(self._whole, {self.name: self._path}) as seen:
            run_whole()
        return [self._signature.flatten(call) for call, _ in seen[self.name]]


def stem_of(name: str, module: str) -> str:
    """Name of a file without its ending: `model`, or `model.encoder`."""
    return f"{name}.{module}" if module else name


def tasks_of_files(
    task: Task, model: nn.Module, submodules: Mapping[str, Submodule]
) -> list[tuple[str, nn.Module, Task]]:
    """What becomes a file: the whole model, or each of its modules; with its name and its task.

    Args:
        task: Of the whole model.
        model: In evaluation mode, on the CPU.
        submodules: The modules that become files; none: the model is one file.
    """
    tasks = [SubmoduleTask(task, model, name, submodule) for name, submodule in submodules.items()]
    return [(own.name, own.model(), own) for own in tasks] or [("", model, task)]


def together(forwards: Mapping[SubmoduleTask, Forward]) -> TorchForward:
    """The model with files, or anything that is called like them, in place of some of its modules."""
    stand_ins = {}
    whole: nn.Module | None = None
    for task, forward in forwards.items():
        whole, path, call = task.in_place(forward)
        stand_ins[path] = call
    assert whole is not None
    return TorchForward(with_stand_ins(whole, stand_ins), _CPU)
