"""Step files: one position, or a few, and the states in; outputs and new states out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from torch import Tensor

from compressor.errors import ExportError, UsageError
from compressor.report import StateInfo, StreamInfo
from compressor.runtimes.runtime_file import open_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from compressor.runtimes.onnx_runtime import ModelFile

METADATA_KEY = "compressor.stream"
"""The entry of `metadata_props` that holds a `StreamInfo` as JSON."""


def read_info(file: ModelFile) -> StreamInfo | None:
    """How a file is run step by step; None if it is not a step file.

    Raises:
        ExportError: The file says so but not how.
    """
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        info = StreamInfo.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ExportError(
            f"{file.path} has metadata `{METADATA_KEY}` that this version cannot read: {where}: {problem['msg']}",
            hint="export the file again",
        ) from error
    inputs = [item.name for item in info.inputs if not item.lengths] + [state.name for state in info.states]
    outputs = [item.name for item in info.outputs] + [state.next_name for state in info.states]
    if inputs != list(file.input_names) or outputs != list(file.output_names):
        raise ExportError(
            f"the metadata `{METADATA_KEY}` of {file.path} names other inputs or outputs than the file has",
            hint="export the file again",
        )
    return info


def initial_state(state: StateInfo, batch: int, *, past: int = 0) -> Tensor:
    """A state before the first position; if it grows, as if `past` positions of zeros had gone before."""
    shape = [batch, *(past if axis == state.growing_axis else int(size) for axis, size in _inner(state))]
    dtype = getattr(torch, state.dtype)
    if isinstance(state.initial, tuple):
        return torch.tensor(state.initial, dtype=dtype).view(1, *shape[1:]).expand(shape).contiguous()
    return torch.full(shape, state.initial, dtype=dtype)


def _inner(state: StateInfo) -> list[tuple[int, int | str]]:
    """Axes and sizes without the batch; that of a growing axis does not count."""
    return [(axis, 0 if axis == state.growing_axis else size) for axis, size in enumerate(state.shape)][1:]


class Steps:
    """A step file of any format, called like a whole-sequence file: it runs all steps from the initial states on.

    Samples are run together if the file takes any batch size and none is shorter than the others, else one by one.
    Outputs at padded positions are zero.
    """

    def __init__(self, path: Path, threads: int = 1, *, file: ModelFile | None = None) -> None:
        """Load the file, unless it is loaded already.

        Raises:
            ExportError: It cannot be loaded, or is not a step file.
        """
        self.file = open_file(path, threads) if file is None else file
        self.runtime = self.file.runtime
        info = read_info(self.file)
        if info is None:
            raise ExportError(f"{path} is not a step file", hint="export with `stream: true`")
        self.info = info
        self._fixed_batch = any(isinstance(state.shape[0], int) for state in info.states)

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs for whole sequences, in the form in which the whole-sequence file gives them.

        Raises:
            UsageError: The inputs are not those of the whole-sequence file.
        """
        if len(inputs) != len(self.info.inputs):
            names = ", ".join(item.name for item in self.info.inputs)
            raise UsageError(f"{self.file.path} streams sequences of the inputs {names}, got {len(inputs)} inputs")
        batch, length = self._size(inputs)
        lengths = self._lengths(inputs, batch, length)
        if not self._fixed_batch and all(own == length for own in lengths):
            outputs = self._run(inputs, batch, length)
        else:
            outputs = self._one_by_one(inputs, lengths, length)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def close(self) -> None:
        """Free the file."""
        self.file.close()

    def _one_by_one(self, inputs: Sequence[Tensor], lengths: list[int], length: int) -> list[Tensor]:
        found = []
        for sample, own in enumerate(lengths):
            alone = [
                part if item.batch_axis is None else part.narrow(item.batch_axis, sample, 1)
                for item, part in zip(self.info.inputs, inputs, strict=True)
            ]
            found.append(self._run(alone, 1, own))
        joined = []
        for item, parts in zip(self.info.outputs, zip(*found, strict=True), strict=True):
            axis = item.time_axis
            padded = [part if axis is None else _padded(part, axis, length) for part in parts]
            joined.append(padded[0] if item.batch_axis is None else torch.cat(padded, item.batch_axis))
        return joined

    def _size(self, inputs: Sequence[Tensor]) -> tuple[int, int]:
        """Batch size and length."""
        batch = length = 1
        for item, part in zip(self.info.inputs, inputs, strict=True):
            if item.batch_axis is not None:
                batch = part.shape[item.batch_axis]
            if item.time_axis is not None:
                length = part.shape[item.time_axis]
        return batch, length

    def _lengths(self, inputs: Sequence[Tensor], batch: int, length: int) -> list[int]:
        for item, part in zip(self.info.inputs, inputs, strict=True):
            if item.lengths:
                return [int(own) for own in part]
        return [length] * batch

    def _run(self, inputs: Sequence[Tensor], batch: int, length: int) -> list[Tensor]:
        """All steps of samples of one length."""
        chunk, outputs = self.info.chunk, self.info.outputs
        states = [initial_state(state, batch) for state in self.info.states]
        pieces: list[list[Tensor]] = [[] for _ in outputs]
        for start in range(0, length, chunk):
            given = self.file(*self.step_inputs(inputs, start, length), *states)
            results = (given,) if isinstance(given, Tensor) else given
            states = list(results[len(outputs) :])
            for kept, result in zip(pieces, results, strict=False):
                kept.append(result)
        return [
            kept[-1] if item.time_axis is None else torch.cat(kept, item.time_axis).narrow(item.time_axis, 0, length)
            for item, kept in zip(outputs, pieces, strict=True)
        ]

    def step_inputs(self, inputs: Sequence[Tensor], start: int, length: int) -> list[Tensor]:
        """The inputs of the step that begins at a position; one that reaches over the end repeats the last position."""
        places = torch.arange(start, start + self.info.chunk).clamp(max=length - 1)
        return [
            part if item.time_axis is None else part.index_select(item.time_axis, places)
            for item, part in zip(self.info.inputs, inputs, strict=True)
            if not item.lengths
        ]

    def one_step(self, inputs: Sequence[Tensor], *, past: int) -> list[Tensor]:
        """All inputs of one step, for a clock: the first positions of `inputs`, and states after `past` positions."""
        batch, length = self._size(inputs)
        states = [initial_state(state, batch, past=past) for state in self.info.states]
        return [*self.file.cast(self.step_inputs(inputs, 0, length)), *states]


def _padded(part: Tensor, axis: int, length: int) -> Tensor:
    missing = length - part.shape[axis]
    if not missing:
        return part
    shape = list(part.shape)
    shape[axis] = missing
    return torch.cat([part, part.new_zeros(shape)], axis)
