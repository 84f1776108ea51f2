"""The step file beside a whole-sequence file: the next positions and all states in, outputs and new states out.

Recurrent layers at one position become plain MatMul, Add, Sigmoid and Tanh, which every phone runtime computes right
and quantizers and accelerators accept; see `Options.cells`. Attention keeps its keys and values.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, ExportError, ParityError
from compressor.measure import parity
from compressor.report import Parity, StateInfo, StreamInfo, StreamInput, StreamOutput
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import METADATA_KEY, Steps, initial_state
from compressor.streaming.difference import Difference, first_difference
from compressor.streaming.step import StepModel, explained
from compressor.streaming.survey import survey
from compressor.task.view import TaskView
from exporters.capture import native_recurrent, packed_sequence
from exporters.capture import program as torch_capture
from exporters.onnx import finish
from exporters.passes import tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx

    from compressor.streaming.survey import StateSpec, Survey
    from compressor.task.contract import Task
    from exporters.onnx import Options

    Inputs = tuple[Tensor, ...]

PAST = "past"
"""The axis of a state that grows."""
_NEXT = ".next"
_TRACED_BATCH = 3
_TRACED_PAST = 5
_LONGER = 10
"""The longest comparison, in lengths of the task."""
_TRIED = 12
"""Positions in the first comparison, in PyTorch."""
_LEAVE_OUT = "or leave `stream` out"


@dataclass(frozen=True)
class StepGraph:
    """The graph of a step and how it is run."""

    proto: onnx.ModelProto
    info: StreamInfo


class Chunked(Protocol):
    """How many positions a step takes."""

    @property
    def chunk(self) -> int:
        """At least 1."""


class Sequences(TaskView):
    """The task as a stream sees it: sequences without padding, and longer ones than the task itself gives."""

    def __init__(self, task: Task, inputs: tuple[StreamInput, ...], generator: torch.Generator | None = None) -> None:
        """For `task`, whose inputs are described by `inputs`; a generator varies those that have no axis of time."""
        super().__init__(task)
        self._described = inputs
        self._generator = generator

    def example(self, batch: int, length: int) -> Inputs:
        """Inputs; if the length is more than the task's longest, several examples one behind the other."""
        missing = length
        parts = []
        while missing > 0:
            part = min(max(missing, self.min_length), self.max_length)
            parts.append(self.task.example(batch, part))
            missing -= part
        return tuple(
            self._joined(item, pieces, batch, length)
            for item, pieces in zip(self._described, zip(*parts, strict=True), strict=True)
        )

    def _joined(self, item: StreamInput, pieces: Sequence[Tensor], batch: int, length: int) -> Tensor:
        first = pieces[0]
        if item.lengths:
            return torch.full_like(first, length)
        if item.time_axis is not None:
            return torch.cat(list(pieces), item.time_axis).narrow(item.time_axis, 0, length)
        if self._generator is not None and first.is_floating_point():
            return torch.randn(first.shape, generator=self._generator, dtype=first.dtype)
        return first


class _Step(nn.Module):
    """A `StepModel` without the inputs that a stream does not have."""

    def __init__(
        self, step: StepModel, inputs: tuple[StreamInput, ...], kinds: Sequence[torch.dtype], chunk: int
    ) -> None:
        super().__init__()
        self.step = step
        self._inputs = inputs
        self._kinds = tuple(kinds)
        self._chunk = chunk

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Run one step; sequences that the model packs are as long as the step."""
        given = iter(parts)
        batch = next(
            part.shape[item.batch_axis]
            for item, part in zip((item for item in self._inputs if not item.lengths), parts, strict=False)
            if item.batch_axis is not None
        )
        complete = [
            torch.full((batch,), self._chunk, dtype=kind) if item.lengths else next(given)
            for item, kind in zip(self._inputs, self._kinds, strict=True)
        ]
        with packed_sequence.full_lengths():
            return self.step(*complete, *given)  # type: ignore[no-any-return]


def describe_inputs(task: Task, example: Inputs) -> tuple[StreamInput, ...]:
    """What becomes of the task's inputs in a stream.

    Raises:
        ExportError: None of them has an axis of time and one of samples.
    """
    found = []
    for (name, axes), part in zip(task.inputs.items(), example, strict=True):
        batch, time = _axis(axes, "batch"), _axis(axes, "time")
        counts = not part.is_floating_point() and part.dim() == 1 and time is None and "len" in name.lower()
        found.append(StreamInput(name=name, batch_axis=batch, time_axis=time, lengths=counts))
    if not any(item.time_axis is not None and item.batch_axis is not None for item in found):
        raise ExportError(
            "no input of the task has an axis called `time` and one called `batch`, so there is nothing to stream",
            hint=f'name them in the task\'s `inputs`, such as {{"features": {{0: "batch", 1: "time"}}}}, {_LEAVE_OUT}',
        )
    return tuple(found)


def _axis(axes: Any, word: str) -> int | None:
    return next((axis for axis, name in axes.items() if name == word), None)


@dataclass(frozen=True)
class Plan:
    """What is known of a model whose steps were found, in PyTorch, to agree with its whole sequences."""

    survey: Survey
    inputs: tuple[StreamInput, ...]
    outputs: tuple[StreamOutput, ...]


def plan(model: nn.Module, task: Task, options: Chunked) -> Plan:
    """Find the states of a model, and try steps of one position in PyTorch.

    Args:
        model: In evaluation mode; it is not changed.
        task: Of the model.
        options: `chunk` counts.

    Raises:
        ExportError: The model cannot be streamed; the message names the layer.
    """
    length = max(task.min_length, min(task.length, task.max_length))
    inputs = describe_inputs(task, task.example(2, length))
    outputs = tuple(
        StreamOutput(name=name, batch_axis=_axis(axes, "batch"), time_axis=_axis(axes, "time"))
        for name, axes in task.outputs.items()
    )
    _refuse_late_answers(outputs, options.chunk)
    found = _survey(model, Sequences(task, inputs, torch.Generator().manual_seed(0)))
    planned = Plan(found, inputs, outputs)
    _try_steps(model, planned, Sequences(task, inputs))
    return planned


def graph(model: nn.Module, task: Task, options: Options) -> StepGraph:
    """The step graph of a model; raises `ExportError` as `plan` does, or where it cannot be written."""
    return _export(model, plan(model, task, options), task, options)


def step_module(model: nn.Module, task: Task, options: Chunked) -> nn.Module:
    """A step as a module: inputs of `chunk` positions and states in, as in the step file; cells are plain operations.

    Raises:
        ExportError: As `plan`.
    """
    planned = plan(model, task, options)
    example = task.example(1, max(task.min_length, min(task.length, task.max_length)))
    step = StepModel(copy.deepcopy(model), planned.survey, chunk=options.chunk, plain=True)
    return _Step(step, planned.inputs, [part.dtype for part in example], options.chunk).eval()


def _refuse_late_answers(outputs: tuple[StreamOutput, ...], chunk: int) -> None:
    late = [output.name for output in outputs if output.time_axis is None]
    if chunk > 1 and late:
        raise ExportError(
            f"output `{late[0]}` has no axis of time, so with chunk: {chunk} it would be known at every {chunk}. "
            "position only",
            hint="use chunk: 1, or let the model give an output for every position",
        )


def _survey(model: nn.Module, task: Sequences) -> Survey:
    first = max(task.min_length, min(7, task.max_length))
    second = max(task.min_length, min(11, task.max_length))
    if first == second and task.min_length < task.max_length:
        first, second = task.min_length, task.min_length + 1
    try:
        with torch_capture.plain_attention():
            found = survey(model, task.example, (first, second))
    except CompressorError:
        raise
    except Exception as error:
        raise explained(error) from error
    if not found.states:
        raise ExportError(
            "no layer of the model carries a state from one position to the next (RNN, GRU, LSTM, their cells, causal "
            "self-attention), so there is nothing to stream",
            hint="leave `stream` out: the file itself may be called with any number of positions",
        )
    return found


# --- in PyTorch first ---


def _try_steps(model: nn.Module, planned: Plan, task: Sequences) -> None:
    """Chain steps of one position in PyTorch; raises `ExportError` with the place where they go another way."""
    length = max(task.min_length, min(task.max_length, _TRIED))
    given = task.example(2, length)
    step = _Step(StepModel(model, planned.survey), planned.inputs, [part.dtype for part in given], 1)
    with torch.no_grad(), torch_capture.plain_attention():
        whole = model(*given)
        run = _Chain(step, planned, given)
        try:
            results = [run(position) for position in range(length)]
        except Exception as error:
            raise explained(error) from error
        expected = (whole,) if isinstance(whole, Tensor) else tuple(whole)
        for index, (output, wanted) in enumerate(zip(planned.outputs, expected, strict=True)):
            position = _first_apart(output, wanted, [result[index] for result in results])
            if position is not None:
                fresh = _Chain(step, planned, given)
                different = first_difference(model, fresh, lambda: model(*given), length, tolerance=1e-4)
                raise _differs(model, output, position, different)


class _Chain:
    """Chained steps of one position over given inputs."""

    def __init__(self, step: _Step, planned: Plan, given: Inputs) -> None:
        batch = next(
            part.shape[item.batch_axis]
            for item, part in zip(planned.inputs, given, strict=True)
            if item.batch_axis is not None
        )
        self._step, self._inputs, self._given = step, planned.inputs, given
        self._count = len(planned.survey.states)
        self._states = step.step.initial_states(batch)

    def __call__(self, position: int) -> Inputs:
        parts = [
            part if item.time_axis is None else part.narrow(item.time_axis, position, 1)
            for item, part in zip(self._inputs, self._given, strict=True)
            if not item.lengths
        ]
        results: Inputs = self._step(*parts, *self._states)
        self._states = results[len(results) - self._count :]
        return results[: len(results) - self._count]


def _first_apart(output: StreamOutput, whole: Tensor, steps: Sequence[Tensor]) -> int | None:
    """The first position at which an output differs; the last one where it has no axis of time."""
    axis = output.time_axis
    if axis is None:
        return None if _close(steps[-1], whole) else len(steps) - 1
    for position, step in enumerate(steps):
        fits = whole.shape[axis] == len(steps) and step.shape[axis] == 1
        if not fits or not _close(step, whole.narrow(axis, position, 1)):
            return position
    return None


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    return torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3, equal_nan=True)


def _differs(model: nn.Module, output: StreamOutput, position: int, different: Difference | None) -> ExportError:
    """The refusal of a model whose steps do not agree with its whole sequences."""
    general = (
        "what depends on the number of the position can be given as an input with a `time` axis; what pools over the "
        f"sequence or looks ahead has no step: read the last position instead, {_LEAVE_OUT}"
    )
    if different is None:
        return ExportError(
            f"step by step, output `{output.name}` is another one at position {position} than on the whole sequence, "
            "though every layer agrees: the code of `forward` mixes positions, for instance by a mean over time",
            hint=general,
        )
    kind = type(model.get_submodule(different.name)).__name__
    place = f"`{different.name}` ({kind})"
    where = f"at position {different.position}" + (", not before" if different.position else " already")
    if different.given:
        return ExportError(
            f"step by step, {place} is given something else than in the whole sequence {where}: the code in front of "
            "it mixes positions or depends on their number, as an added table of positions does",
            hint=general,
        )
    return ExportError(
        f"step by step, {place} gives something else than in the whole sequence {where}, although it is given the "
        "same: it mixes positions",
        hint=general,
    )


# --- the graph ---


@dataclass(frozen=True)
class Traceable:
    """A step as a module that can be traced, and what is known of its inputs and outputs."""

    module: nn.Module
    arguments: list[Tensor]
    """One value for each input: first those of the model, then all states, after `_TRACED_PAST` positions."""
    inputs: dict[str, dict[int, str]]
    """Name -> {axis: name} of the axes that are open; in order."""
    outputs: dict[str, dict[int, str]]
    info: StreamInfo


def traceable(
    model: nn.Module, planned: Plan, task: Task, *, chunk: int = 1, dynamic: bool = False, plain: bool = True
) -> Traceable:
    """The step of `model` that a tracer can follow.

    Args:
        model: In evaluation mode, whose recurrent layers are prepared for native nodes where they are not `plain`.
        planned: What is known of it.
        task: Of the model.
        chunk: Positions in a step.
        dynamic: Any number of streams at once; else one.
        plain: As in `StepModel`.
    """
    found, inputs = planned.survey, planned.inputs
    batch = _TRACED_BATCH if dynamic else 1
    whole = Sequences(task, inputs).example(batch, max(chunk, task.min_length))
    given = [
        part if item.time_axis is None else part.narrow(item.time_axis, 0, chunk)
        for item, part in zip(inputs, whole, strict=True)
    ]
    step = _Step(StepModel(model, found, chunk=chunk, plain=plain), inputs, [part.dtype for part in whole], chunk)
    states = _state_infos(found.states, {*task.inputs, *task.outputs}, dynamic)
    kept = [(item, part) for item, part in zip(inputs, given, strict=True) if not item.lengths]
    fixed = {"time"} if dynamic else {"time", "batch"}
    return Traceable(
        module=step,
        arguments=[part for _, part in kept] + [initial_state(state, batch, past=_TRACED_PAST) for state in states],
        inputs={
            item.name: {axis: word for axis, word in task.inputs[item.name].items() if word not in fixed}
            for item, _ in kept
        }
        | {state.name: _dynamic_axes(state) for state in states},
        outputs={
            name: {axis: word for axis, word in named.items() if word not in fixed}
            for name, named in task.outputs.items()
        }
        | {state.next_name: _dynamic_axes(state, after=chunk) for state in states},
        info=StreamInfo(chunk=chunk, inputs=inputs, outputs=planned.outputs, states=states),
    )


def _export(model: nn.Module, planned: Plan, task: Task, options: Options) -> StepGraph:
    plain = options.cells == "plain" or (options.cells == "auto" and options.chunk == 1)
    own = copy.deepcopy(model)
    if not plain:
        native_recurrent.prepare(own, parts=True)
    step = traceable(own, planned, task, chunk=options.chunk, dynamic=options.batch == "dynamic", plain=plain)
    program = torch_capture.capture(step.module, step.arguments, step.inputs)
    built = torch_capture.translate(program, options.opset)
    with torch_capture.quiet():
        tidy.tidy(built)
    tidy.name_values(built, step.inputs, step.outputs)
    proto = tidy.to_proto(built, step.inputs, step.outputs, options.ir_version)
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, step.info.model_dump_json()
    finish(proto, options)
    return StepGraph(proto, step.info)


def _dynamic_axes(state: StateInfo, after: int = 0) -> dict[int, str]:
    axes = {0: state.shape[0]} if isinstance(state.shape[0], str) else {}
    named: dict[int, str] = dict(axes)
    if state.growing_axis is not None:
        named[state.growing_axis] = f"{PAST} + {after}" if after else PAST
    return named


def _state_infos(specs: Sequence[StateSpec], taken: set[str], dynamic: bool) -> tuple[StateInfo, ...]:
    found = []
    for spec in specs:
        name = spec.name
        while name in taken or name + _NEXT in taken:
            name = f"state.{name}"
        taken |= {name, name + _NEXT}
        values = spec.initial.flatten().tolist()
        uniform = len(set(values)) <= 1
        shape: list[int | str] = ["batch" if dynamic else 1, *spec.initial.shape[1:]]
        if spec.growing_axis is not None:
            shape[spec.growing_axis] = PAST
        found.append(
            StateInfo(
                name=name,
                next_name=name + _NEXT,
                dtype=str(spec.initial.dtype).removeprefix("torch."),
                shape=tuple(shape),
                growing_axis=spec.growing_axis,
                initial=(values[0] if values else 0.0) if uniform else tuple(values),
            )
        )
    return tuple(found)


# --- agreement ---


class _Forward(Protocol):
    def __call__(self, *inputs: Tensor) -> Any:
        """Outputs."""


class Tolerances(Protocol):
    """How far a file may be from PyTorch."""

    @property
    def atol(self) -> float:
        """Absolute tolerance."""

    @property
    def rtol(self) -> float:
        """Relative tolerance."""


def agreement(
    reference: nn.Module, whole: Path, step: Path, task: Task, options: Options, seed: int
) -> tuple[Parity, Parity]:
    """Chained steps of the file beside PyTorch, also at ten times the task's length, and beside the whole file.

    Raises:
        ParityError: They disagree somewhere.
    """
    steps = Steps(step)
    with_torch = beside_torch(reference, steps, task, options, seed)
    sequences = Sequences(task, steps.info.inputs)
    long = (1, _LONGER * task.length)
    with torch.no_grad(), torch_capture.plain_attention():
        extra = [long] if task.min_length <= long[1] <= task.max_length else []
        beside_file = _compare(OnnxFile(whole), steps, sequences, options, seed, extra)
    for name, found in (("PyTorch", with_torch), ("the whole-sequence file", beside_file)):
        if not found.passed:
            raise ParityError(
                f"the chained steps of the step file disagree with {name} (atol {found.atol:g}, rtol {found.rtol:g}):\n"
                + parity.table(found),
                hint="where every point is close, raise atol and rtol; at the longest lengths a model may amplify "
                "rounding from one position to the next",
            )
    return with_torch, beside_file


def beside_torch(reference: nn.Module, steps: Steps, task: Task, options: Tolerances, seed: int) -> Parity:
    """Chained steps of a file, in whatever runtime, beside PyTorch's whole sequences, also at ten times the length."""
    sequences = Sequences(task, steps.info.inputs)
    long = (1, _LONGER * task.length)
    with torch.no_grad(), torch_capture.plain_attention():
        extra = [long] if _runs(reference, lambda: sequences.example(*long)) else []
        return _compare(reference, steps, sequences, options, seed, extra)


def _runs(model: nn.Module, example: Callable[[], Inputs]) -> bool:
    """Whether the model takes an input that the task does not promise, such as a longer one."""
    try:
        model(*example())
    except Exception:  # whatever the model's code raises there is no fault of the file
        return False
    return True


def _compare(
    wanted: _Forward, steps: Steps, task: Sequences, options: Tolerances, seed: int, extra: list[tuple[int, int]]
) -> Parity:
    generator = torch.Generator().manual_seed(seed)
    return parity.check(wanted, steps, task, atol=options.atol, rtol=options.rtol, generator=generator, extra=extra)
