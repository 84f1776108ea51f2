"""Finds the states of a model, and proves in PyTorch that its steps agree with its whole sequences."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from compressor.errors import CompressorError, ExportError
from compressor.nn.attention.plain import plain_attention
from compressor.report import StreamOutput
from compressor.streaming.step import StepModel, explained
from compressor.streaming.survey import survey
from exporters.capture.halting import refuse_halting
from exporters.stepping.module import Step
from exporters.stepping.plan import Plan, axis_named, describe_inputs, refuse_late_outputs
from exporters.stepping.sequences import Sequences
from exporters.stepping.trial import try_steps

if TYPE_CHECKING:
    from torch import nn

    from compressor.streaming.survey import Survey
    from compressor.task.contract import Task


def find_plan(model: nn.Module, task: Task, *, chunk: int = 1) -> Plan:
    """Find the states of a model, and try steps of one position in PyTorch.

    Args:
        model: In evaluation mode; it is not changed.
        task: Of the model.
        chunk: Positions in a step.

    Raises:
        ExportError: The model cannot be streamed; the message names the layer.
    """
    refuse_halting(model, "a step file")
    length = max(task.min_length, min(task.length, task.max_length))
    inputs = describe_inputs(task, task.example(2, length))
    outputs = tuple(
        StreamOutput(name=name, batch_axis=axis_named(axes, "batch"), time_axis=axis_named(axes, "time"))
        for name, axes in task.outputs.items()
    )
    refuse_late_outputs(outputs, chunk)
    survey = _survey(model, Sequences(task, inputs, torch.Generator().manual_seed(0)))
    planned = Plan(survey, inputs, outputs)
    try_steps(model, planned, Sequences(task, inputs))
    return planned


def step_module(model: nn.Module, task: Task, *, chunk: int = 1) -> nn.Module:
    """A step as a module: inputs of `chunk` positions and states in, as in the step file; cells are plain operations.

    Raises:
        ExportError: As `find_plan`.
    """
    planned = find_plan(model, task, chunk=chunk)
    example = task.example(1, max(task.min_length, min(task.length, task.max_length)))
    step = StepModel(copy.deepcopy(model), planned.survey, chunk=chunk, plain=True)
    return Step(step, planned.inputs, [part.dtype for part in example], chunk).eval()


def _survey(model: nn.Module, task: Sequences) -> Survey:
    first = max(task.min_length, min(7, task.max_length))
    second = max(task.min_length, min(11, task.max_length))
    if first == second and task.min_length < task.max_length:
        first, second = task.min_length, task.min_length + 1
    try:
        with plain_attention():
            found = survey(model, task.example, (first, second))
    except CompressorError:
        raise
    except Exception as error:
        raise explained(error) from error
    if not found.states:
        raise ExportError(
            "no layer of the model carries a state from one position to the next (RNN, GRU, LSTM, their cells, causal "
            "self-attention, a causal convolution, a module of yours or a variable of a loop that is given at each "
            "position what came out at the one before), so there is nothing to stream",
            hint="leave `stream` out: the file itself may be called with any number of positions; a state that a loop "
            "of `forward` keeps in a variable streams if it starts from a tensor, such as `x.new_zeros(...)`",
        )
    return found
