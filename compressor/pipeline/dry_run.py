"""Tries everything that a task gives once, before any work: what is wrong with it is said within seconds."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import Place, TaskError
from compressor.task.forwards import AdaptedForward, TorchForward
from compressor.task.model_checks import changed_tensors, kept_tensors
from compressor.task.samples import Sample, few

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from compressor.task.contract import Inputs
    from compressor.task.guard import GuardedTask

_EVALUATED = 2
"""Calls of the model after which a trial of `evaluate` is stopped."""
_SAME = 1e-5
"""Largest difference of two calls on the same input, relative to the largest output; GPUs sum in any order."""


class _Enough(BaseException):
    """Stops a trial of `evaluate`; no `except Exception` of the user's holds it up."""


def try_out(task: GuardedTask, model: nn.Module, device: torch.device, *, trains: bool = True) -> tuple[Sample, ...]:
    """Call the model twice, take one batch through loss and gradients, and begin an evaluation.

    Args:
        task: The user's task.
        model: Its model, in evaluation mode, on `device`; it is not changed.
        device: Where the run will take place.
        trains: Whether the loss is needed.

    Returns:
        A few inputs of the task's own data.

    Raises:
        TaskError: Something does not run or cannot be right; the message says what, the place is the task's file.
    """
    forward = TorchForward(model, device)
    example = task.example(2, task.length)
    refuse_changing(task, model, forward, example)
    _refuse_nan(task, forward(*example))
    real = []
    try:
        real.append(Sample("batches", few(task, _try_batch(task, model, device, trains))))
    except TaskError as error:
        if not isinstance(error.__cause__, NotImplementedError):  # the task says that it has none
            raise
    evaluated = _try_evaluation(task, forward)
    if evaluated is not None:
        real.append(Sample("evaluate", few(task, evaluated)))
    return tuple(real)


# --- the model --------------------------------------------------------------------------------------------------------


def refuse_changing(task: GuardedTask, model: nn.Module, forward: Callable[..., Any], example: Inputs) -> None:
    """Refuse a model that gives something else in a second call: its file could not agree with it."""
    before = kept_tensors(model)
    with torch.random.fork_rng():
        first, second = _parts(forward(*example)), _parts(forward(*example))
        if _equal(first, second):
            return
        changed = changed_tensors(model, before)
        random = [_seeded(forward, example) for _ in range(2)]
    if _equal(*random) and not changed:
        raise _error(
            task,
            "the model gives other results in a second call on the same input: it draws random numbers in evaluation "
            "mode",
            "draw only `if self.training`, or let the caller hand the noise over as an input",
        )
    where = f" in `{changed[0]}`" if changed else " in an attribute"
    raise _error(
        task,
        f"the model gives other results in a second call on the same input: it keeps a state{where}",
        "take the state as an input and return the new one; a file remembers nothing between calls",
    )


def _seeded(forward: Callable[..., Any], example: Inputs) -> list[Tensor]:
    torch.manual_seed(0)
    return _parts(forward(*example))


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    for one, other in zip(first, second, strict=True):
        if one.shape != other.shape:
            return False
        if not one.numel():
            continue
        scale = float(one.double().nan_to_num().abs().max()) if one.is_floating_point() else 0.0
        if not torch.allclose(one.double(), other.double(), rtol=0.0, atol=_SAME * scale, equal_nan=True):
            return False
    return True


def _refuse_nan(task: GuardedTask, outputs: Any) -> None:
    for name, part in zip(task.outputs, _parts(outputs), strict=True):
        if part.is_floating_point() and bool(part.isnan().any()):
            raise _error(
                task,
                f"the model gives NaN in `{name}` for `example(2, {task.length})`",
                "let `example` give inputs as they are in use; a row that is masked whole gives NaN in a softmax",
            )


# --- batches, loss, evaluation ----------------------------------------------------------------------------------------


def _try_batch(task: GuardedTask, model: nn.Module, device: torch.device, trains: bool) -> Inputs:
    """The inputs of the first batch."""
    for inputs, target in task.batches(torch.Generator().manual_seed(0)):
        _check_inputs(task, inputs)
        if trains:
            _try_loss(task, model, device, inputs, target)
        return inputs
    raise _error(task, "`batches` gives no batch", "yield pairs (inputs, target)")


def _check_inputs(task: GuardedTask, inputs: Inputs) -> None:
    """Hold a batch against the example: the same dtypes, axes and fixed sizes, finite numbers."""
    for (name, axes), part, like in zip(task.inputs.items(), inputs, task.example(2, task.length), strict=True):
        problem = _problem(part, like, axes)
        if problem:
            raise _error(
                task, f"the first of `batches` gives `{name}` {problem}", "batches and `example` must be alike"
            )


def _problem(part: Tensor, like: Tensor, axes: Mapping[int, str]) -> str:
    if part.dtype != like.dtype:
        return f"in {_plain(part.dtype)}, `example` in {_plain(like.dtype)}"
    if part.dim() != like.dim():
        return f"with {part.dim()} axes, `example` with {like.dim()}"
    for axis, (size, expected) in enumerate(zip(part.shape, like.shape, strict=True)):
        if not size:
            return f"of shape {tuple(part.shape)}, which holds nothing"
        if axis not in axes and size != expected:
            return f"of size {size} along axis {axis}, `example` of size {expected}"
    if part.is_floating_point() and not bool(part.isfinite().all()):
        return "with values that are not finite"
    return ""


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _try_loss(task: GuardedTask, model: nn.Module, device: torch.device, inputs: Inputs, target: Any) -> None:
    trained = copy.deepcopy(model).train()
    moved = target.to(device) if isinstance(target, Tensor) else target
    try:
        outputs = trained(*(part.to(device) for part in inputs))
    except Exception as error:
        shapes = ", ".join(str(tuple(part.shape)) for part in inputs)
        raise _error(
            task,
            f"the model does not run on the first of `batches`, of shapes {shapes}: {type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}",
            "`batches` must give what `forward` takes",
        ) from error
    loss = task.loss(outputs, moved)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise _error(task, f"`loss` must give one number as a tensor, not {given}", "take the mean over the batch")
    if not loss.is_floating_point():
        raise _error(task, f"`loss` gives {_plain(loss.dtype)}", "a loss is a real number: float32")
    if not bool(loss.isfinite().all()):
        raise _error(
            task,
            f"`loss` gives {float(loss.detach())} on the first batch",
            "look for log(0), or labels that are no class",
        )
    if not loss.requires_grad:
        raise _error(
            task,
            "`loss` has no gradient",
            "compute it from the outputs with PyTorch's functions: no `.detach()`, `.item()` or NumPy; some parameter "
            "must want a gradient",
        )
    loss.backward()


def _try_evaluation(task: GuardedTask, forward: TorchForward) -> Inputs | None:
    """Begin `evaluate` twice: it must call the model, on the same inputs each time.

    Gives the inputs of the first call, None if that was one of a module alone.
    """
    first, second = _begun(task, forward), _begun(task, forward)
    if not first.seen:
        raise _error(
            task,
            "`evaluate` never calls `forward`, so its metric is not one of the model",
            "call `forward(...)` as you would call the model",
        )
    calls = zip(first.seen, second.seen, strict=False)
    if len(first.seen) != len(second.seen) or not all(_equal(*pair) for pair in calls):
        raise _error(
            task,
            "`evaluate` calls the model with other inputs each time, so that two models cannot be compared",
            "evaluate on the same samples in the same order: fix the seed, and do not shuffle",
        )
    return first.whole


def _begun(task: GuardedTask, forward: TorchForward) -> _Watched:
    """The inputs of the first calls of the model, or of its modules, in `evaluate`."""
    watched = _Watched(forward)
    with suppress(_Enough):
        task.evaluate(watched)
    return watched


class _Watched(AdaptedForward):
    """Notes the inputs of the first calls."""

    def __init__(self, forward: TorchForward) -> None:
        super().__init__(forward, self._note_whole)
        self.seen: list[list[Tensor]] = []
        self.whole: Inputs | None = None
        """Of the first call, if it was one of the whole model."""

    def submodule(self, path: str) -> Callable[..., Any]:
        module = super().submodule(path)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._note(part for part in pytree.tree_leaves((args, kwargs)) if isinstance(part, Tensor))
            return module(*args, **kwargs)

        return call

    def _note_whole(self, inputs: Inputs) -> Inputs:
        self._note(inputs)
        if len(self.seen) == 1:
            self.whole = tuple(inputs)
        return inputs

    def _note(self, inputs: Iterable[Tensor]) -> None:
        if len(self.seen) == _EVALUATED:
            raise _Enough
        self.seen.append(list(inputs))


def _parts(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _error(task: GuardedTask, message: str, hint: str) -> TaskError:
    return TaskError(message, hint=hint, place=Place(task.file))
