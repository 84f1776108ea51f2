"""Where a step is carried out: on the run's device, or on the CPU if the device lacks what the step needs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from compressor.methods.base import Context, Control, Method, State, StepResult


def carried_out(step: Method, state: State, context: Context) -> StepResult:
    """`step.apply`, on the CPU if the step needs float64 and the device has none; a note says so then."""
    if not _lacks(step, context.device):
        return step.apply(state, context)
    result = step.apply(*_on_cpu(state, context))
    note = f"carried out on the CPU: `{context.device.type}` has no float64"
    return replace(result, state=_moved(result.state, context.device), notes=(*result.notes, note))


def controlled(step: Method, control: Control, state: State, context: Context) -> State:
    """A control of a step (`Method.controls`), where the step itself is carried out."""
    if not _lacks(step, context.device):
        return control(state, context).state
    return _moved(control(*_on_cpu(state, context)).state, context.device)


def _lacks(step: Method, device: torch.device) -> bool:
    from compressor.nn.accelerators import has_float64

    return step.needs_float64 and not has_float64(device)


def _on_cpu(state: State, context: Context) -> tuple[State, Context]:
    from compressor.nn.accelerators import CPU

    return _moved(state, CPU), replace(context, device=CPU, original=copy.deepcopy(context.original).to(CPU))


def _moved(state: State, device: torch.device) -> State:
    masks = {name: mask.to(device) for name, mask in state.masks.items()}
    return replace(state, model=copy.deepcopy(state.model).to(device), masks=masks)
