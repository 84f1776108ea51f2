"""What the user supplies: the model, its data and its metric."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, Place, TaskError
from compressor.nn.attention_parts import AttentionParts

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

    import torch
    from torch import Tensor, nn

    Inputs = tuple[Tensor, ...]
    Outputs = Tensor | tuple[Tensor, ...]
    Forward = Callable[..., Outputs]
    """The model or an exported file: called with the model's inputs, all tensors on the CPU."""


_ATTRIBUTES = ("metric", "higher_is_better", "inputs", "outputs", "length", "min_length", "max_length", "attention")
"""The class attributes of a task."""


@dataclass(frozen=True)
class Evaluation:
    """What `Task.evaluate` may return beside a plain float."""

    value: float | None = None
    """The metric; where it is left out it is the mean of `per_sample`."""
    per_sample: Tensor | None = None
    """Scores (N,) whose mean is the metric; gives the confidence interval."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Breakdown of the metric, such as accuracy per class."""


class Task(ABC):
    """Subclass this in a Python file and give the file to `compressor run --task FILE.py`.

    The class attributes say how the model's inputs and outputs are called and which of their axes are dynamic.
    `batch` and `time` are the axis names that the tool varies when it checks an exported file.
    """

    metric: str = "accuracy"
    higher_is_better: bool = True
    inputs: Mapping[str, Mapping[int, str]] = {"input": {0: "batch", 1: "time"}}
    """Input name -> {axis: name of the dynamic axis}, in the order of `forward`'s arguments."""
    outputs: Mapping[str, Mapping[int, str]] = {"output": {0: "batch"}}
    """Output name -> {axis: name of the dynamic axis}, in the order of `forward`'s results."""
    length: int = 32
    """A typical length of the `time` axis: latency and MACs are given for it."""
    min_length: int = 1
    max_length: int = 256
    """Shortest and longest length at which an exported file must agree with PyTorch."""
    attention: Mapping[str, AttentionParts] = {}
    """Glob of module names (or `re:` and a regular expression) -> where multi-head attention that is not PyTorch's has
    its parts. The first pattern that fits a module counts."""

    @abstractmethod
    def model(self) -> nn.Module:
        """The trained model, weights loaded, on the CPU."""

    @abstractmethod
    def example(self, batch: int, length: int) -> Inputs:
        """Valid inputs of the model at this batch size and length (random or real), as a tuple of tensors."""

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterable[tuple[Inputs, Any]]:
        """One epoch of training batches, each (inputs, target); shuffle with `generator`."""

    @abstractmethod
    def loss(self, outputs: Outputs, target: Any) -> Tensor:
        """The training loss of one batch, a scalar."""

    @abstractmethod
    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The metric on held-out data: a float, per-sample scores (N,), or an `Evaluation`.

        `forward` is the PyTorch model in evaluation mode or an exported file; no gradients are kept.
        """

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The metric by which retraining stops early; give other data than `evaluate` where there is some."""
        return self.evaluate(forward)


class GuardedTask(Task):
    """A task whose functions may raise anything: what they raise becomes a `TaskError` that names file and line."""

    def __init__(self, task: Task, file: str) -> None:
        """Wrap `task`, which was defined in `file`."""
        self.task = task
        self.file = file
        for name in _ATTRIBUTES:
            setattr(self, name, getattr(task, name))
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
            from compressor.surgery.attention_sites import check_declared

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
            return _GuardedBatches(self.task.batches(generator), self._checked)

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

    @property
    def validates_on_evaluation_data(self) -> bool:
        """True where the task has no `validate` of its own."""
        return type(self.task).validate is Task.validate

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
                place=_place_in(self.file, error.__traceback__),
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
        from compressor.methods.targets import check_patterns

        try:
            check_patterns(tuple(self.attention))
        except ValueError as error:
            raise TaskError(f"`attention` of {self.name}: {error}", place=Place(self.file)) from error


class NarrowedTask(GuardedTask):
    """The task of a compressed model whose states among the inputs have fewer units than the user's code makes."""

    def __init__(self, task: GuardedTask, structure: Iterable[Mapping[str, Any]]) -> None:
        """`structure` holds the records of the compressed model; those of `edges` count here."""
        from compressor.surgery.edges import KIND, Edges

        super().__init__(task.task, task.file)
        self._edges = [Edges.from_record(record) for record in structure if record.get("kind") == KIND]

    def example(self, batch: int, length: int) -> Inputs:
        """The task's example, its states cut to the units that are left."""
        return self._narrow(super().example(batch, length))

    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `evaluate`; states of the old size are cut on their way into `forward`."""
        return super().evaluate(lambda *inputs: forward(*self._narrow(inputs)))

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `validate`, in the same way."""
        return super().validate(lambda *inputs: forward(*self._narrow(inputs)))

    def batches(self, generator: torch.Generator) -> Iterable[tuple[Inputs, Any]]:
        """The task's batches as the compressed model takes them."""
        return ((self._narrow(inputs), target) for inputs, target in super().batches(generator))

    def _narrow(self, inputs: Inputs) -> Inputs:
        for edges in self._edges:
            inputs = edges.narrow(inputs)
        return inputs


class _GuardedBatches:
    """Batches behind a guard; `len` works where it works on what the task gave, so that bars show what remains."""

    def __init__(self, batches: Any, checked: Callable[[Any], Iterator[tuple[Inputs, Any]]]) -> None:
        self._batches = batches
        self._checked = checked

    def __iter__(self) -> Iterator[tuple[Inputs, Any]]:
        return self._checked(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def split_spec(spec: str) -> tuple[str, str]:
    """`FILE.py` and `NAME` of `FILE.py:NAME`; the name is empty where there is none."""
    file, _, name = spec.rpartition(":")
    return (file, name) if file.endswith(".py") else (spec, "")


def load(spec: str) -> GuardedTask:
    """Load the task of `FILE.py` or `FILE.py:NAME`; without a name, the first task that the file defines.

    The file is the only code of the user's that runs. Its folder is put on the import path, as for a script.
    """
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
    try:
        return GuardedTask(chosen(), file)
    except CompressorError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"`{chosen.__name__}()` raised {type(error).__name__}: {error}",
            hint="mend the task file",
            place=_place_in(file, error.__traceback__),
        ) from error


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
    try:
        specification.loader.exec_module(module)
    except SyntaxError as error:
        where = Place(file, error.lineno, error.offset, (error.text or "").rstrip("\n"))
        raise TaskError(f"task file is not valid Python: {error.msg}", place=where) from error
    except CompressorError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"task file raised {type(error).__name__}: {error}",
            hint="mend the task file",
            place=_place_in(file, error.__traceback__),
        ) from error
    return module


def _place_in(file: str, traceback: TracebackType | None) -> Place:
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
