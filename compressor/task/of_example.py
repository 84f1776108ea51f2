"""A task of a model and one example of its arguments: examples of other sizes are made of that one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import TaskError
from compressor.task import open_axes
from compressor.task.axes import BATCH, TIME
from compressor.task.signature import Call, as_call
from compressor.task.unlabelled import UnlabelledTask, seeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from compressor.task.axes import Axes

_NOISE = 0.1
"""Relative change of floats in examples."""


class ExampleTask(UnlabelledTask):
    """Examples are rows and positions of the given one, in order, their floats changed a little.

    An integer tensor without positions whose largest value is the number of positions holds lengths, which follow it.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        *,
        axes: Axes | None = None,
        lengths: tuple[int, int] | None = None,
        samples: Iterable[Any] | None = None,
    ) -> None:
        """Make a task of a call of a model.

        Args:
            model: In evaluation mode.
            example: As `Task.example` gives it.
            axes: As `Task.inputs`; None: found by calling the model.
            lengths: Shortest and longest `time`; None: found by calling the model.
            samples: Inputs to learn and to calibrate from; None: examples.

        Raises:
            TaskError: The model does not take the example, or `axes` names other tensors.
        """
        self._model, self._samples = model, samples
        call = as_call(example)
        leaves, self._spec = pytree.tree_flatten((call.args, call.kwargs))
        self._leaves = [part.detach().cpu() if isinstance(part, Tensor) else part for part in leaves]
        self._tensors = [part for part in self._leaves if isinstance(part, Tensor)]
        if not self._tensors:
            raise TaskError("the arguments hold no tensor", hint="give the tensors that `forward` takes")
        self._check()
        self.axes = open_axes.find(self._tensors, self._run) if axes is None else self._named(axes)
        self.length = self._size(TIME) or 1
        self.min_length, self.max_length = lengths or self._lengths()
        self.length = min(max(self.length, self.min_length), self.max_length)

    def model(self) -> nn.Module:
        """The model itself."""
        return self._model

    def samples(self, generator: torch.Generator) -> Iterable[Any]:
        """What was given, or examples."""
        return super().samples(generator) if self._samples is None else self._samples

    def example(self, batch: int, length: int) -> Any:
        """Rows and positions of the example, by PyTorch's global generator."""
        rows = self._picked(BATCH, batch)
        positions = self._picked(TIME, length)
        full = self._size(TIME)
        parts = []
        for part, axes in zip(self._tensors, self.axes, strict=True):
            changed = _changed(part)
            for axis, word in axes.items():
                changed = changed.index_select(axis, rows if word == BATCH else positions)
            if full is not None and _are_lengths(part, axes, full):
                changed = changed.clamp(max=length)
                changed[0] = length
            parts.append(changed)
        return self._call(parts)

    def _picked(self, word: str, size: int) -> Tensor:
        """Indices along an axis, the first one included, in order: a prefix that is not padding stays one."""
        full = self._size(word) or 1
        picked = torch.randint(full, (size,))
        picked[0] = 0
        return picked.sort().values

    def _size(self, word: str) -> int | None:
        for part, axes in zip(self._tensors, self.axes, strict=True):
            for axis, name in axes.items():
                if name == word:
                    return int(part.shape[axis])
        return None

    def _lengths(self) -> tuple[int, int]:
        if self._size(TIME) is None:
            return 1, 1
        batch = self._size(BATCH) or 1

        def runs(length: int) -> bool:
            call = self.example(batch, length)
            try:
                self._model_of(call)
            except Exception:
                return False
            return True

        with seeded(0):
            return open_axes.lengths(self.length, runs)

    def _named(self, axes: Axes) -> list[dict[int, str]]:
        """What the caller says of the axes, in the order of the tensors."""
        if axes and len(axes) != len(self._tensors):
            raise TaskError(
                f"`dynamic` names {len(axes)} tensors, but the arguments hold {len(self._tensors)}",
                hint='name all in their order, with {} for fixed ones: {"x": {0: "batch", 1: "time"}, "state": {}}',
            )
        self.inputs = axes
        return [dict(words) for words in axes.values()] if axes else [{} for _ in self._tensors]

    def _check(self) -> None:
        try:
            self._run(self._tensors)
        except Exception as error:
            shapes = ", ".join(str(tuple(part.shape)) for part in self._tensors)
            raise TaskError(
                f"the model does not run on the given arguments of shapes {shapes}: {type(error).__name__}: "
                f"{(str(error).splitlines() or [''])[0]}",
                hint="give the arguments of `forward`: positional ones as a tuple, keyword arguments as `kwargs`",
            ) from error

    def _run(self, tensors: Sequence[Tensor]) -> Any:
        return self._model_of(self._call(tensors))

    def _model_of(self, call: Call) -> Any:
        with torch.no_grad():
            return self._model(*call.args, **call.kwargs)

    def _call(self, tensors: Sequence[Tensor]) -> Call:
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(part, Tensor) else part for part in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return Call(*args, **kwargs)


def _changed(part: Tensor) -> Tensor:
    """Floats times 1 + 0.1 noise; other tensors as they are."""
    return part * (1 + _NOISE * torch.randn(part.shape)).to(part.dtype) if part.is_floating_point() else part


def _are_lengths(part: Tensor, axes: Mapping[int, str], full: int) -> bool:
    integers = not part.is_floating_point() and part.dtype != torch.bool
    return integers and TIME not in axes.values() and part.dim() == 1 and int(part.max()) == full
