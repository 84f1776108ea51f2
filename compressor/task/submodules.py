"""A task whose model becomes several files: how each module is called, and each module as a task of its own.

The model's own `forward` says how its modules work together. It is run with the task's example, and what enters and
leaves each module is seen; so units that one module hands to another are followed like all others.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.errors import TaskError
from compressor.nn.seams import seam_of, unmark
from compressor.task.axes import BATCH, TIME, Observed, Sized
from compressor.task.calls import Calls, run
from compressor.task.fidelity import tensors_of
from compressor.task.forwards import TorchForward
from compressor.task.signature import Call, Signature, flatten_calls, structured
from compressor.task.sizes import example_at
from compressor.task.view import TaskView, ViewedBatches, adapted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from compressor.task.calls import Sizes, Trials
    from compressor.task.contract import Evaluation, Forward, Inputs, Task
    from compressor.task.sizes import Ranges
    from compressor.task.view import Batch

    Seen = dict[str, list[tuple[Call, Any]]]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Submodule:
    """One module that becomes a file."""

    path: str
    """Its name in the model."""
    calls: Calls


def paths_of(declared: Any) -> dict[str, str]:
    """Name of each file -> the module's name in the model, from `Task.modules`.

    Raises:
        TaskError: It is neither names nor a mapping of names, or a name is no identifier.
    """
    hint = 'such as `modules = ("encoder", "decoder")`, or `{"encoder": "net.encoder", "decoder": "net.decoder"}`'
    if isinstance(declared, str) or not isinstance(declared, (Mapping, Sequence)):
        raise TaskError("`modules` must name modules of the model", hint=hint)
    paths = dict(declared) if isinstance(declared, Mapping) else {name: name for name in declared}
    for name, path in paths.items():
        if not isinstance(path, str) or not path or not isinstance(name, str) or not name.isidentifier():
            raise TaskError(f"`modules` cannot name a file {name!r} for {path!r}", hint=hint)
    for path in paths.values():
        within = [other for other in paths.values() if path.startswith(f"{other}.")]
        if within:
            raise TaskError(f"`modules` names `{path}` beside `{within[0]}`, which holds it", hint="name one of them")
    return paths


def learn_submodules(
    trials: Trials, model: nn.Module, paths: Mapping[str, str], ranges: Ranges
) -> dict[str, Submodule]:
    """See how the model calls each of its modules, at two sizes of every axis.

    Args:
        trials: The calls of the model.
        model: In evaluation mode, with the user's own `forward`.
        paths: As `paths_of` gives them.
        ranges: Of the further sizes that the model's tensors follow.

    Raises:
        TaskError: A module is not there, not called, called in two ways, or used in another way than by calls; or
            the model has parameters outside of all of them.
    """
    for path in paths.values():
        _check_there(model, path)
    _refuse_parameters_outside(model, paths)
    first, others = trials.first, trials.changed()
    seen = _seen(trials, model, paths, first)
    changed = {word: _seen(trials, model, paths, sizes) for word, sizes in others.items()}
    _refuse_other_uses(trials, model, paths, first)
    found = {}
    for name, path in paths.items():
        call, result = seen[name][-1]
        signature = Signature.of_call(model.get_submodule(path).forward, call).with_results(result)
        shapes = _shapes(name, signature, seen[name])
        sized = {word: (others[word], _shapes(name, signature, calls[name])) for word, calls in changed.items()}
        inputs, outputs = (
            Observed(
                names,
                Sized(first, shapes[side]),
                {word: Sized(sizes, both[side]) for word, (sizes, both) in sized.items()},
            ).axes(None)
            for side, names in enumerate((signature.input_names, signature.output_names))
        )
        followed = {word: bounds for word, bounds in ranges.items() if sized[word][1] != shapes}
        found[name] = Submodule(path, Calls(signature, inputs, outputs, followed))
    return found


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
        with _watched(self._whole, {self.name: self._path}) as seen:
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
    return TorchForward(_with(whole, stand_ins), _CPU)


class _StandIn(nn.Module):
    """A function in place of a module: it can be called, and nothing else."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


def _with(model: nn.Module, calls: Mapping[str, Callable[..., Any]]) -> nn.Module:
    """A copy of the model with functions in place of modules; what they replace is not copied."""
    memo: dict[int, Any] = {id(model.get_submodule(path)): _StandIn(call) for path, call in calls.items()}
    return copy.deepcopy(model, memo)


@contextmanager
def _watched(model: nn.Module, paths: Mapping[str, str]) -> Iterator[Seen]:
    """Name -> every call of that module and its result, within the block."""
    seen: Seen = {name: [] for name in paths}

    def watch(name: str) -> Callable[..., None]:
        return lambda module, args, kwargs, result: seen[name].append((Call(*args, **kwargs), result))

    handles = [
        model.get_submodule(path).register_forward_hook(watch(name), with_kwargs=True) for name, path in paths.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _seen(trials: Trials, model: nn.Module, paths: Mapping[str, str], sizes: Sizes) -> Seen:
    with _watched(model, paths) as seen:
        trials.run(model, sizes)
    for name, calls in seen.items():
        if not calls:
            raise TaskError(
                f"the model's `forward` does not call `{paths[name]}`, which `modules` names",
                hint="let `forward` run the modules one after the other, as they are trained; a file takes what it "
                "hands to them",
            )
    return seen


def _shapes(
    name: str, signature: Signature, calls: Sequence[tuple[Call, Any]]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of what enters and leaves a module in its last call; all calls must be alike."""
    for call, result in calls:
        try:
            tensors = signature.flatten(call)
        except TaskError as error:
            raise TaskError(
                f"`{name}` is called in two ways: {error.message.partition(': ')[2]}",
                hint="a file takes the same arguments in every call: hand over zeros for a state that is not there yet",
            ) from error
        mine = signature.with_results(result).outputs
        if mine is None or signature.outputs is None or mine.spec != signature.outputs.spec:
            raise TaskError(f"`{name}` gives results of several structures", hint="a file gives the same in every call")
    return [tuple(part.shape) for part in tensors], [tuple(part.shape) for part in tensors_of(calls[-1][1])]


def _check_there(model: nn.Module, path: str) -> None:
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    if path not in known:
        near = difflib.get_close_matches(path, known, 1)
        raise TaskError(
            f"`modules` names `{path}`, which the model does not have",
            hint=f"did you mean `{near[0]}`?" if near else f"it has {', '.join(f'`{name}`' for name in known[:8])}",
        )


def _refuse_parameters_outside(model: nn.Module, paths: Mapping[str, str]) -> None:
    inside = {id(part) for path in paths.values() for part in model.get_submodule(path).parameters()}
    outside = [name for name, part in model.named_parameters() if id(part) not in inside]
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        raise TaskError(
            f"`{outside[0]}`{more} belongs to none of the task's `modules`, so it would be in no file",
            hint="move it into the module that uses it, or name its module too",
        )


def _refuse_other_uses(trials: Trials, model: nn.Module, paths: Mapping[str, str], sizes: Sizes) -> None:
    """Refuse a model that reaches into its modules: from a file one gets what its `forward` gives."""
    tried = _with(model, {path: model.get_submodule(path) for path in paths.values()})
    try:
        trials.run(tried, sizes)
    except TaskError as error:
        if isinstance(error.__cause__, AttributeError):
            raise TaskError(
                "the model uses something of its modules other than their call: "
                f"{str(error.__cause__).replace('_StandIn', 'file')}",
                hint="a file has its `forward` only; do it inside of one of the modules",
            ) from error
        raise
