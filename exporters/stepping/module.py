"""A step as a module that can be traced: the next positions and all states in, outputs and new states out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.report import StateInfo, StreamInfo, StreamInput
from compressor.runtimes.steps import initial_state
from compressor.streaming.step import StepModel
from exporters.capture import packed_sequence
from exporters.stepping.sequences import Sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.streaming.survey import StateSpec
    from compressor.task.contract import Task
    from exporters.stepping.plan import Plan


PAST = "past"
"""The axis of a state that grows."""


_NEXT = ".next"


_TRACED_BATCH = 3


_TRACED_PAST = 5


class Step(nn.Module):
    """A `StepModel` without the inputs that a stream does not have."""

    def __init__(
        self, step: StepModel, inputs: tuple[StreamInput, ...], kinds: Sequence[torch.dtype], chunk: int
    ) -> None:
        """For a task's `inputs`, whose values have the types `kinds`, `chunk` positions at a time."""
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
        model: In evaluation mode, whose recurrent layers are prepared for native nodes unless they are `plain`.
        planned: What is known of it.
        task: Of the model.
        chunk: Positions in a step.
        dynamic: Any number of streams at once; else one.
        plain: As in `StepModel`.
    """
    inputs = planned.inputs
    batch = _TRACED_BATCH if dynamic else 1
    whole = Sequences(task, inputs).example(batch, max(chunk, task.min_length))
    given = [
        part if item.time_axis is None else part.narrow(item.time_axis, 0, chunk)
        for item, part in zip(inputs, whole, strict=True)
    ]
    step = Step(
        StepModel(model, planned.survey, chunk=chunk, plain=plain),
        inputs,
        [part.dtype for part in whole],
        chunk,
    )
    states = _state_infos(planned.survey.states, {*task.inputs, *task.outputs}, dynamic)
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


def _dynamic_axes(state: StateInfo, after: int = 0) -> dict[int, str]:
    axes = {0: state.shape[0]} if isinstance(state.shape[0], str) else {}
    named: dict[int, str] = dict(axes)
    if state.growing_axis is not None:
        named[state.growing_axis] = f"{PAST} + {after}" if after else PAST
    return named


def _state_infos(specs: Sequence[StateSpec], taken: set[str], dynamic: bool) -> tuple[StateInfo, ...]:
    infos = []
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
        infos.append(
            StateInfo(
                name=name,
                next_name=name + _NEXT,
                dtype=str(spec.initial.dtype).removeprefix("torch."),
                shape=tuple(shape),
                growing_axis=spec.growing_axis,
                initial=(values[0] if values else 0.0) if uniform else tuple(values),
            )
        )
    return tuple(infos)
