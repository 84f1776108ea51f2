"""How a task's model is called: found by calling it at several sizes, held against what the task declares."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import TaskError
from compressor.task.axes import BATCH, TIME, Observed, Sized, check_declared
from compressor.task.fidelity import tensors_of
from compressor.task.model_checks import changed_tensors, kept_tensors
from compressor.task.signature import Call, Signature
from compressor.task.sizes import written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from compressor.task.axes import Axes
    from compressor.task.sizes import Ranges

    Sizes = Mapping[str, int]
    Shapes = list[tuple[int, ...]]


_SIDES = ("inputs", "outputs")


@dataclass(frozen=True)
class Trials:
    """The calls by which a model is learnt: at first sizes, and with each of these changed."""

    arguments: Callable[..., Call]
    """The call that the task's `example` stands for, by batch size, length and further sizes."""
    first: Sizes
    others: Sizes
    """A second size of every axis that has one."""

    def call(self, sizes: Sizes) -> Call:
        """The call at these sizes."""
        further = {name: size for name, size in sizes.items() if name not in (BATCH, TIME)}
        return self.arguments(sizes[BATCH], sizes[TIME], **further)

    def run(self, model: nn.Module, sizes: Sizes) -> Any:
        """What the model gives at these sizes; raises `TaskError` if it cannot run."""
        return run(model, self.call(sizes), sizes)

    def changed(self) -> dict[str, Sizes]:
        """Which size is changed -> the sizes then."""
        return {word: {**self.first, word: size} for word, size in self.others.items()}


@dataclass(frozen=True)
class Declared:
    """What a task says of its model's calls; all of it may be left out."""

    inputs: Axes
    outputs: Axes
    ranges: Ranges
    lengths: tuple[int, int] | None = None
    """`min_length` and `max_length`, if the task says them and they differ."""


@dataclass(frozen=True)
class Calls:
    """What is known of a model's calls."""

    signature: Signature
    inputs: Axes
    """Name of each tensor that goes in -> {axis: name of the open axis}."""
    outputs: Axes
    ranges: Ranges = field(default_factory=dict)
    """Name of each further open axis -> its smallest and largest size."""
    kinds: Sequence[tuple[torch.dtype, tuple[int, ...]]] = ()
    """Type and shape of each tensor that goes in, at the first sizes."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """`batch`, `time` and further sizes of the task's example -> the two at which the model was called."""


def learn_calls(trials: Trials, model: nn.Module, declared: Declared) -> Calls:
    """Call `model` at two sizes of every axis of the task's example.

    Args:
        trials: The calls.
        model: In evaluation mode, with the user's own `forward`.
        declared: What the task declares; what it leaves out is found.

    Raises:
        TaskError: The model does not take the example, gives another structure at another size, or its axes are not
            those that the task declares, or the task declares lengths that its example does not have.
    """
    first, others = trials.first, trials.changed()
    call = trials.call(first)
    signature = Signature.of_call(model.forward, call)
    if not signature.input_names:
        raise TaskError("`example` gives no tensor", hint="give the tensors that `forward` takes")
    before = kept_tensors(model)
    signature = signature.with_results(run(model, call, first))
    kept = changed_tensors(model, before)
    try:
        seen = _shapes(trials, model, signature, first)
        _refuse_other_shapes([tuple(part.shape) for part in signature.flatten(call)], seen[0], signature, first)
        changed = {word: _shapes(trials, model, signature, sizes) for word, sizes in others.items()}
    except TaskError as error:
        raise _of_states(error, kept) from error
    sides = []
    for side, found in enumerate((signature.input_names, _apart(signature, declared))):
        sized = {word: Sized(others[word], shapes[side]) for word, shapes in changed.items()}
        sides.append(Observed(found, Sized(first, seen[side]), sized))
    inputs, outputs = (_named(*side) for side in zip(sides, (declared.inputs, declared.outputs), _SIDES, strict=True))
    if declared.lengths and changed.get(TIME) == seen:
        raise _without_length(trials, declared.lengths)
    followed = [word for word, shapes in changed.items() if word not in (BATCH, TIME) and shapes != seen]
    ranges = _ranges(trials, model, followed, declared.ranges)
    # Inputs that the task declares are as open as it says; outputs follow from them.
    outward = outputs.axes(declared.outputs or None)
    tried = {
        word: (first[word], size) for word, size in trials.others.items() if word in (BATCH, TIME) or word in ranges
    }
    kinds = [(part.dtype, tuple(part.shape)) for part in signature.flatten(call)]
    return Calls(signature, declared.inputs or inputs.axes(None), outward, ranges, kinds, tried)


def _apart(signature: Signature, declared: Declared) -> tuple[str, ...]:
    """Names of the outputs, which are no names of inputs: a file has one tensor of a name.

    Raises:
        TaskError: The task declares an output by the name that was found for an input.
    """
    taken = set(declared.inputs or signature.input_names)
    for name in taken & set(declared.outputs):
        raise TaskError(
            f"`outputs` calls a tensor `{name}`, which is the name of an input", hint="a file has one tensor of a name"
        )
    return tuple(f"output.{name}" if name in taken else name for name in signature.output_names)


def _named(found: Observed, declared: Axes, what: str) -> Observed:
    """The same with the names that the task declares, which are checked."""
    if not declared:
        return found
    if len(declared) != len(found.names):
        raise TaskError(
            f"`{what}` names {len(declared)} tensors, but there are {len(found.names)}: {', '.join(found.names)}",
            hint=f"name all of them in this order, or leave `{what}` out",
        )
    named = replace(found, names=tuple(declared))
    check_declared(named, declared, what)
    return named


def _ranges(trials: Trials, model: nn.Module, followed: Sequence[str], declared: Ranges) -> Ranges:
    """The range of each further size that the model's tensors follow: the task's, or what the model takes.

    Raises:
        TaskError: A size has the default 1, at which nothing can be seen, or is declared and no tensor follows it.
    """
    for name in declared:
        if name not in followed:
            raise TaskError(f"`ranges` names `{name}`, but no tensor's size follows it", hint="leave it out")
    first, ranges = trials.first, {}
    for name in followed:
        size = first[name]
        if size == 1:
            raise TaskError(
                f"`example` gives `{name}` the size 1 by default",
                hint=f"a typical size of 2 or more; `ranges = {{{name!r}: (1, ...)}}` says that 1 is allowed",
            )
        if name in declared:
            smallest, largest = declared[name]
        else:
            smallest = 1 if _runs(trials, model, {**first, name: 1}) else size
            largest = 2 * size + 1 if _runs(trials, model, {**first, name: 2 * size + 1}) else size + 1
        ranges[name] = smallest, largest
    return ranges


def _runs(trials: Trials, model: nn.Module, sizes: Sizes) -> bool:
    """Whether there is such an example, and the model takes it."""
    try:
        trials.run(model, sizes)
    except TaskError:
        return False
    return True


def _refuse_other_shapes(one: Shapes, other: Shapes, signature: Signature, sizes: Sizes) -> None:
    for name, *shapes in zip(signature.input_names, one, other, strict=True):
        if shapes[0] != shapes[1]:
            raise TaskError(
                f"`{written(sizes)}` gives `{name}` another shape in a second call: {shapes[0]}, then {shapes[1]}",
                hint="sizes must follow from the arguments of `example` alone; values may be random",
            )


def _without_length(trials: Trials, lengths: tuple[int, int]) -> TaskError:
    shortest, longest = lengths
    first, other = (written({**trials.first, TIME: sizes[TIME]}) for sizes in (trials.first, trials.others))
    return TaskError(
        f"the task's lengths are {shortest} to {longest}, but `{first}` and `{other}` give tensors of the same sizes",
        hint="make inputs of the length that `example` is given; if the model takes a single length, leave "
        "`min_length` and `max_length` out",
    )


def _of_states(error: TaskError, kept: Sequence[str]) -> TaskError:
    """The same error; if the model keeps something between calls, that is its likely cause."""
    if not kept:
        return error
    return TaskError(
        f"the model keeps a state in `{kept[0]}`, and does not run at another size after that: {error.message}",
        hint="take the state as an input and return the new one; a file remembers nothing between calls",
    )


def _shapes(trials: Trials, model: nn.Module, signature: Signature, sizes: Sizes) -> tuple[Shapes, Shapes]:
    """Shapes of the tensors that go in and come out at these sizes."""
    call = trials.call(sizes)
    tensors = signature.flatten(call)
    results = run(model, call, sizes)
    mine = signature.with_results(results).outputs
    if mine is None or signature.outputs is None or mine.spec != signature.outputs.spec:
        raise TaskError(f"the model gives another structure at `{written(sizes)}` than at its first size")
    return [tuple(part.shape) for part in tensors], [tuple(part.shape) for part in tensors_of(results)]


def run(model: nn.Module, call: Call, sizes: Sizes) -> Any:
    """What the model gives for an example of these sizes; raises `TaskError` if it cannot run."""
    try:
        with torch.no_grad():
            return model(*call.args, **call.kwargs)
    except Exception as error:
        parts = [*call.args, *call.kwargs.values()]
        shapes = ", ".join(str(tuple(part.shape)) for part in parts if isinstance(part, torch.Tensor))
        raise TaskError(
            f"the model does not run on `{written(sizes)}` of shapes {shapes}: "
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            hint="`example(batch, length)` must give the arguments of the model's `forward`, valid at every length "
            "from `min_length` to `max_length`",
        ) from error
