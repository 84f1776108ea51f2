"""The user's task behind a guard: what its functions raise becomes a `TaskError` with the file and the line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, Place, TaskError
from compressor.nn.attention.parts import AttentionParts
from compressor.nn.patterns import check_patterns
from compressor.task.view import TaskView, ViewedBatches

if TYPE_CHECKING:
    from types import TracebackType

    import torch
    from torch import Tensor, nn

    from compressor.task.contract import Evaluation, Forward, Inputs, Outputs, Task


class GuardedTask(TaskView):
    """A task whose functions may raise anything: what they raise becomes a `TaskError` that names file and line."""

    def __init__(self, task: Task, file: str) -> None:
        """Wrap `task`, which was defined in `file`."""
        super().__init__(task)
        self.file = file
        self._check_attributes()

    @property
    def name(self) -> str:
        """The class name of the user's task."""
        return type(self.task).__name__

    def model(self) -> nn.Module:
        """The task's `model`, checked to be a module with finite weights and the attention that the task names.

        It is in evaluation mode.
        """
        from torch import nn

        model = self._call("model")
        if not isinstance(model, nn.Module):
            raise self._wrong("model", "a torch.nn.Module", model)
        _refuse_broken_weights(model, self.file)
        if self.attention:
            from compressor.surgery.attention.sites import check_declared

            try:
                check_declared(model, self.attention)
            except TaskError as error:
                raise TaskError(error.message, hint=error.hint, place=Place(self.file)) from error
        return model.eval()

    def example(self, batch: int, length: int) -> Inputs:
        """The task's `example`, checked to be a tuple of as many tensors as `inputs` has names."""
        from torch import Tensor

        example = self._call("example", batch, length)
        if isinstance(example, Tensor):
            example = (example,)
        if not isinstance(example, tuple) or not all(isinstance(part, Tensor) for part in example):
            raise self._wrong("example", "a tuple of tensors", example)
        if len(example) != len(self.inputs):
            raise TaskError(
                f"`example` of {self.name} gives {len(example)} tensors, but `inputs` names {len(self.inputs)}",
                hint="name every argument of the model's `forward`, in order",
                place=Place(self.file),
            )
        return example

    def batches(self, generator: torch.Generator) -> Iterable[tuple[Inputs, Any]]:
        """The task's `batches`, with their length where they have one; each is checked to be (inputs, target)."""
        with self._guard("batches"):
            return ViewedBatches(self.task.batches(generator), self._checked)

    def _checked(self, batches: Iterable[tuple[Inputs, Any]]) -> Iterator[tuple[Inputs, Any]]:
        with self._guard("batches"):
            iterator = iter(batches)
        while True:
            with self._guard("batches"):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            if not isinstance(batch, tuple) or len(batch) != 2:
                raise self._wrong("batches", "pairs (inputs, target)", batch)
            inputs, target = batch
            yield (inputs if isinstance(inputs, tuple) else (inputs,)), target

    def loss(self, outputs: Outputs, target: Any) -> Tensor:
        """The task's `loss`."""
        with self._guard("loss"):
            return self.task.loss(outputs, target)

    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `evaluate`."""
        with self._guard("evaluate"):
            return self.task.evaluate(forward)

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `validate`."""
        with self._guard("validate"):
            return self.task.validate(forward)

    def _call(self, function: str, *arguments: Any) -> Any:
        with self._guard(function):
            return getattr(self.task, function)(*arguments)

    @contextmanager
    def _guard(self, function: str) -> Iterator[None]:
        try:
            yield
        except CompressorError:
            raise
        except (Exception, SystemExit) as error:
            raise TaskError(
                f"`{function}` of {self.name} raised {type(error).__name__}: {error}",
                hint="mend the task file; `compressor inspect --task FILE` tries it without compressing",
                place=place_in(self.file, error.__traceback__),
            ) from error

    def _wrong(self, function: str, expected: str, found: Any) -> TaskError:
        return TaskError(
            f"`{function}` of {self.name} must give {expected}, not {type(found).__name__}", place=Place(self.file)
        )

    def _check_attributes(self) -> None:
        for name in ("inputs", "outputs"):
            axes = getattr(self, name)
            if not isinstance(axes, Mapping) or not axes or not all(isinstance(a, Mapping) for a in axes.values()):
                raise TaskError(
                    f"`{name}` of {self.name} must map each tensor's name to {{axis: axis name}}",
                    hint='such as {"features": {0: "batch", 1: "time"}}',
                    place=Place(self.file),
                )
        if not isinstance(self.attention, Mapping) or not all(
            isinstance(pattern, str) and isinstance(parts, AttentionParts) for pattern, parts in self.attention.items()
        ):
            raise TaskError(
                f"`attention` of {self.name} must map globs of module names to AttentionParts",
                hint='such as {"encoder.*.attention": AttentionParts(query="q", key="k", ...)}',
                place=Place(self.file),
            )
        if self.attention:
            self._check_patterns()
        if not 1 <= self.min_length <= self.length <= self.max_length:
            raise TaskError(
                f"{self.name} needs 1 <= min_length <= length <= max_length, not "
                f"{self.min_length}, {self.length}, {self.max_length}",
                place=Place(self.file),
            )

    def _check_patterns(self) -> None:
        try:
            check_patterns(tuple(self.attention))
        except ValueError as error:
            raise TaskError(f"`attention` of {self.name}: {error}", place=Place(self.file)) from error


def place_in(file: str, traceback: TracebackType | None) -> Place:
    """The innermost line of the user's file that the error passed through."""
    target = str(Path(file).resolve())
    frames = [f for f in extract_tb(traceback) if str(Path(f.filename).resolve()) == target]
    if not frames:
        return Place(file)
    frame = frames[-1]
    return Place(file, frame.lineno, None, frame.line)


def _refuse_broken_weights(model: nn.Module, file: str) -> None:
    broken = []
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            broken.append(name)
    if broken:
        raise TaskError(
            f"the model's weights are not finite: {', '.join(f'`{name}`' for name in broken[:5])}"
            + (f" and {len(broken) - 5} more" if len(broken) > 5 else ""),
            hint="NaN or infinity in a checkpoint means that training diverged; take an earlier checkpoint",
            place=Place(file),
        )
