"""The user's task behind a guard: what its functions raise becomes a `TaskError` with the file and the line."""

from __future__ import annotations

import inspect
import itertools
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from compressor.errors import CompressorError, Place, TaskError, TaskNote
from compressor.nn.seams import mark
from compressor.task.attributes import check_attributes, declared_lengths
from compressor.task.batches import difference, split
from compressor.task.calls import Calls, Declared, Trials, learn_calls
from compressor.task.closures import bind_closures
from compressor.task.forwards import AdaptedForward, ModelForward, TorchForward
from compressor.task.model_checks import check_model
from compressor.task.places import place_in, place_of, raised_in
from compressor.task.signature import Call, as_call, flatten_calls, structured
from compressor.task.sizes import check_ranges, first_sizes, further_sizes, other_sizes
from compressor.task.submodules import learn_submodules, paths_of
from compressor.task.view import TaskView, ViewedBatches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch
    from torch import nn

    from compressor.task.axes import Axes
    from compressor.task.contract import Evaluation, Forward, Inputs, Outputs, Task
    from compressor.task.sizes import Ranges
    from compressor.task.submodules import Submodule


class GuardedTask(TaskView):
    """A task whose functions may raise anything: what they raise becomes a `TaskError` that names file and line."""

    def __init__(self, task: Task, file: str) -> None:
        """Wrap `task`, which was defined in `file`."""
        self.file = file
        self.calls: Calls | None = None
        """How the model is called; known once it was built."""
        self.submodules: Mapping[str, Submodule] = {}
        """The modules that become files of their own, by name; known once the model was built."""
        self.notes: tuple[str, ...] = ()
        """What was done to the model when it was built: prefixes taken off names, computed weights folded."""
        self.limit: int | None = None
        """Samples of an evaluation, for tasks whose `evaluate` or `validate` takes a `limit`; None: all."""
        self.opened: set[str] = set()
        """Files that the task has opened so far, as far as that was watched; see `compressor.task.files_read`."""
        self.masks: Mapping[str, Tensor] = {}
        """Parameter -> where it is kept (True), if the model came pruned."""
        super().__init__(task)
        with self.placed():
            check_attributes(task, self._declared_inputs, self._declared_outputs)
            check_ranges(self.declared_ranges, further_sizes(task.example))
            paths_of(task.modules)

    @property
    def inputs(self) -> Axes:
        """Name of each input -> {axis: name of the open axis}: what the task declares, or else what was found."""
        return self.learned().inputs

    @inputs.setter
    def inputs(self, declared: Axes) -> None:
        self._declared_inputs = declared

    @property
    def outputs(self) -> Axes:
        """The same of each output."""
        return self.learned().outputs

    @outputs.setter
    def outputs(self, declared: Axes) -> None:
        self._declared_outputs = declared

    @property
    def ranges(self) -> Ranges:
        """Smallest and largest size of each further open axis."""
        return self.learned().ranges

    @ranges.setter
    def ranges(self, declared: Ranges) -> None:
        self.declared_ranges = declared

    @property
    def name(self) -> str:
        """The class name of the user's task."""
        return type(self.task).__name__

    def model(self) -> nn.Module:
        """The task's `model`, checked, in evaluation mode, computed weights folded; it takes and gives flat tensors."""
        from compressor.nn.folding import fold

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", TaskNote)
            model = self._call("model")
        self.notes = tuple(str(note.message) for note in told if issubclass(note.category, TaskNote))
        for note in told:
            if not issubclass(note.category, TaskNote):
                warnings.warn_explicit(note.message, note.category, note.filename, note.lineno)
        with self.placed():
            check_model(model, self.attention)
            bind_closures(model)
            folded = fold(model.eval())
        self.notes, self.masks = (*self.notes, *folded.notes), folded.masks
        learned = self.learned(model)
        for submodule in self.submodules.values():
            mark(model.get_submodule(submodule.path))
        return flatten_calls(model, learned.signature)

    def learned(self, model: nn.Module | None = None) -> Calls:
        """How the model is called, found when it is first asked for."""
        if self.calls is None:
            if model is None:
                self.model()
                assert self.calls is not None
                return self.calls
            declared = Declared(
                self._declared_inputs, self._declared_outputs, self.declared_ranges, declared_lengths(self.task)
            )
            further = further_sizes(self.task.example)
            others = other_sizes(self, further, self.declared_ranges)
            trials = Trials(self.arguments, first_sizes(self, further), others)
            with self.placed():
                calls = learn_calls(trials, model, declared)
                paths = paths_of(self.task.modules)
                self.submodules = learn_submodules(trials, model, paths, calls.ranges) if paths else {}
            self.calls = calls
        return self.calls

    def arguments(self, batch: int, length: int, **further: int) -> Call:
        """The call of the model that the task's `example` stands for."""
        example = self._call("example", batch, length, **further)
        with self.placed():
            return as_call(example)

    def example(self, batch: int, length: int, **further: int) -> Inputs:
        """The tensors of the task's `example`."""
        call = self.arguments(batch, length, **further)
        with self.placed():
            return self._flat(call)

    def _flat(self, call: Call) -> Inputs:
        """The tensors of a call; the model is built for that only if they are not the arguments themselves."""
        if self.calls is None and not call.kwargs and all(isinstance(part, Tensor) for part in call.args):
            return call.args
        return self.learned().signature.flatten(call)

    def batches(self, generator: torch.Generator) -> Iterable[tuple[Inputs, Any]]:
        """The task's `batches` as (tensors, target), with their length if they have one."""
        with self._guard("batches"):
            return ViewedBatches(self.task.batches(generator), self._checked)

    def _checked(self, batches: Iterable[Any]) -> Iterator[tuple[Inputs, Any]]:
        with self._guard("batches"):
            iterator = iter(batches)
        for number in itertools.count(1):
            with self._guard("batches"):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            with self.placed():
                call, target = split(batch, self.task.batch_parts, self.task.target)
                inputs = self._flat(call)
            self._refuse_unlike(inputs, number, iterator)
            with self.placed():
                yield inputs, target

    def _refuse_unlike(self, inputs: Inputs, number: int, iterator: Iterator[Any]) -> None:
        """Raise `TaskError` if a batch is unlike the example, once that is known; the place is that of the `yield`."""
        if self.calls is None:
            return
        for (name, axes), part, kind in zip(self.calls.inputs.items(), inputs, self.calls.kinds, strict=True):
            differs = difference(part, kind, axes)
            if differs:
                which = "the first of `batches`" if number == 1 else f"batch {number} of `batches`"
                raise TaskError(
                    f"{which} gives `{name}` {differs}",
                    hint="batches and `example` must agree in dtypes and axes",
                    place=place_of(self.file, getattr(iterator, "gi_frame", None)),
                )

    def loss(self, outputs: Outputs, target: Any) -> Tensor:
        """The task's `loss` of what the model's own `forward` would give."""
        results = outputs if self.calls is None else self.calls.signature.results(outputs)
        with self._guard("loss"):
            return self.task.loss(results, target)

    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `evaluate`; `forward` is called as the model itself there."""
        structured = self._structured(forward)
        with self._guard("evaluate"):
            return self.task.evaluate(structured, **self._limited(self.task.evaluate))

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `validate`, in the same way."""
        structured = self._structured(forward)
        with self._guard("validate"):
            return self.task.validate(structured, **self._limited(self.task.validate))

    def is_sliced(self, *, validation: bool) -> bool:
        """Whether `evaluate` or `validate` takes a `limit` of samples."""
        return _takes_limit(self.task.validate if validation else self.task.evaluate)

    def _limited(self, function: Callable[..., Any]) -> dict[str, int]:
        return {"limit": self.limit} if self.limit is not None and _takes_limit(function) else {}

    def _structured(self, forward: Forward | TorchForward) -> Callable[..., Any]:
        """A flat `forward` that is called as the user's own; a user's own, as long as the model was not built."""
        if self.calls is None and not self.task.modules:
            return forward
        whole = structured(self.learned().signature, forward)
        if not self.submodules:
            return whole
        paths = {name: submodule.path for name, submodule in self.submodules.items()}
        assert isinstance(forward, (TorchForward, AdaptedForward))  # no single file holds the modules of several
        return ModelForward(whole, {name: forward.submodule(path) for name, path in paths.items()})

    def _call(self, function: str, *arguments: Any, **named: Any) -> Any:
        with self._guard(function):
            return getattr(self.task, function)(*arguments, **named)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Errors of the task name its file."""
        try:
            yield
        except TaskError as error:
            raise TaskError(error.message, hint=error.hint, place=error.place or Place(self.file)) from error

    @contextmanager
    def _guard(self, function: str) -> Iterator[None]:
        try:
            yield
        except TaskError as error:
            place = error.place or place_in(self.file, error.__traceback__)
            raise TaskError(error.message, hint=error.hint, place=place) from error
        except CompressorError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, NotImplementedError) and raised_in(error) == function:
                raise TaskError(
                    f"{self.name} has no `{function}`{f': {error}' if str(error) else ''}",
                    hint=f"define `{function}`, or leave out the step that needs it",
                    place=place_in(self.file, error.__traceback__),
                ) from error
            raise TaskError(
                f"`{function}` of {self.name} raised {type(error).__name__}: {error}",
                hint="fix the task file; `compressor inspect --task FILE` tries it without compressing",
                place=place_in(self.file, error.__traceback__),
            ) from error


def _takes_limit(function: Callable[..., Any]) -> bool:
    return "limit" in inspect.signature(function).parameters
