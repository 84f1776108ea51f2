"""An exported file as a task's `evaluate` calls it: any batch of sequences in, the outputs of the model out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from compressor.errors import ExportError
from compressor.runtimes.freed_memory import give_back
from compressor.runtimes.runtime_file import open_file
from compressor.runtimes.steps import Steps, read_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from compressor.runtimes.onnx_runtime import ModelFile

    Axes = Mapping[str, Mapping[int, str]]


class NamedAxes(Protocol):
    """The part of a task that is needed here."""

    @property
    def inputs(self) -> Axes:
        """Input name -> {axis: name of the dynamic axis}."""

    @property
    def outputs(self) -> Axes:
        """Output name -> {axis: name of the dynamic axis}."""


class WhenCalled:
    """A file that is opened when it is called, and again after it was closed: so one can be in memory at a time."""

    def __init__(self, open_file: Callable[[], Callable[..., Any]]) -> None:
        """`open_file` loads it, and gives what is called."""
        self._open_file = open_file
        self._forward: Callable[..., Any] | None = None

    def open(self) -> Callable[..., Any]:
        """Load it, unless it is open; raises what the loading does."""
        if self._forward is None:
            give_back()  # what the last file left behind
            self._forward = self._open_file()
        return self._forward

    def __call__(self, *inputs: Tensor) -> Any:
        """The outputs of the file."""
        return self.open()(*inputs)

    def close(self) -> None:
        """Give its memory back until it is called again."""
        self._forward = None
        give_back()


def open_forward(path: Path, task: NamedAxes, threads: int = 1, *, runtime: str | None = None) -> Steps | Fixed:
    """Load a file to be called with any batch of sequences, whatever it takes itself.

    A step file runs all steps of every sequence, and a file of batch 1 one sample after the other. A length that a
    file does not take is an error: nothing is padded or cut, which would be another model.

    Args:
        path: The file.
        task: What its axes are called.
        threads: Of the runtime.
        runtime: Another runtime for an ONNX file than ONNX Runtime.

    Raises:
        ExportError: It cannot be loaded.
    """
    file = open_file(path, threads, runtime=runtime)
    try:
        if read_info(file) is not None:
            return Steps(path, threads, file=file)
        return Fixed(file, task)
    except BaseException:
        file.close()
        raise


class Fixed:
    """A whole-sequence file, some of whose axes may be fixed: as many calls as a larger batch needs.

    A batch that is not a multiple of the file's is filled up with copies of its last sample, whose outputs are dropped.
    Where the file has float16 it is given that, and gives float32.
    """

    def __init__(self, file: ModelFile, task: NamedAxes) -> None:
        """For a file whose axes have the names that the task gives them; those that it fixes included."""
        self._file = file
        self.runtime = file.runtime
        """Name and version."""
        self._axes_in = [task.inputs[name] for name in file.input_names]
        self._batch_in = [_axis(axes, "batch") for axes in self._axes_in]
        self._batch_out = [_axis(axes, "batch") for axes in task.outputs.values()]
        self.batch = self.fixed_size("batch")
        """Samples of a call; None if it takes any number."""
        self.length = self.fixed_size("time")
        """The one length that it takes; None if it takes any."""
        self._time_in = [_axis(axes, "time") for axes in self._axes_in]

    @property
    def alone(self) -> bool:
        """Whether it takes one sample at a time."""
        return self.batch == 1

    def fixed_size(self, word: str) -> int | None:
        """The size of the named axis if the file fixes it."""
        for item, axes in zip(self._file.inputs, self._axes_in, strict=True):
            axis = _axis(axes, word)
            size = item.shape[axis] if axis is not None else None
            if isinstance(size, int):
                return size
        return None

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs for a batch; those without an axis of samples as the last call gave them.

        Raises:
            UsageError: The inputs are not those of the file.
            ExportError: The sequences have another length than the file takes.
        """
        self._check_length(inputs)
        if self.batch is None:
            joined = self._run(inputs)
        else:
            count = self._count(inputs)
            found = [self._run(piece) for piece in self.pieces(inputs)]
            joined = tuple(
                parts[-1] if axis is None else torch.cat(parts, axis).narrow(axis, 0, count)
                for axis, parts in zip(self._batch_out, zip(*found, strict=True), strict=True)
            )
        return joined[0] if len(joined) == 1 else joined

    def pieces(self, inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """A batch in pieces that the file takes."""
        if self.batch is None:
            yield tuple(inputs)
            return
        count = self._count(inputs)
        for start in range(0, count, self.batch):
            rows = torch.arange(start, start + self.batch).clamp(max=count - 1)
            yield tuple(
                part if axis is None else part.index_select(axis, rows)
                for part, axis in zip(inputs, self._batch_in, strict=True)
            )

    def one_call(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The inputs of one call in the precision that the file takes."""
        return self._file.cast(inputs)

    def close(self) -> None:
        """Free the file."""
        self._file.close()

    def _count(self, inputs: Sequence[Tensor]) -> int:
        sizes = [part.shape[axis] for part, axis in zip(inputs, self._batch_in, strict=True) if axis is not None]
        return max(sizes, default=1)

    def _run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs = self._file(*self.one_call(inputs))
        flat = (outputs,) if isinstance(outputs, Tensor) else outputs
        return tuple(part.float() if part.dtype == torch.float16 else part for part in flat)

    def _check_length(self, inputs: Sequence[Tensor]) -> None:
        if self.length is None:
            return
        for part, axis in zip(inputs, self._time_in, strict=False):
            if axis is not None and part.shape[axis] != self.length:
                raise ExportError(
                    f"{self._file.path.name} takes sequences of {self.length} positions, and was given "
                    f"{part.shape[axis]}; it is not padded or cut, which would be another model",
                    hint="a step file (`form: step`, `stream: true`) takes any length; or let the task's `evaluate` "
                    "give that length only",
                )


def _axis(axes: Mapping[int, str], word: str) -> int | None:
    return next((axis for axis, name in axes.items() if name == word), None)
