"""How states and steps are kept in the journal of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor import checkpoint
from compressor.methods.base import State
from compressor.pipeline.parts import Kept
from compressor.report import StepReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from compressor.task.contract import Task


class StateForm:
    """Of a state: the records of the model's structure and its weights, as in a run folder."""

    def __init__(self, task: Task, device: torch.device) -> None:
        """`device` is where the model is wanted."""
        self._task = task
        self._device = device

    def write(self, value: State) -> Kept:
        """Everything that the next step begins with."""
        weights, aliases = checkpoint.weights_of(value.model)
        facts = {
            "structure": list(value.structure),
            "aliases": aliases,
            "frozen": [name for name, item in value.model.named_parameters() if not item.requires_grad],
        }
        masks = {name: mask.cpu() for name, mask in value.masks.items()}
        return Kept(facts, {**_prefixed("weight.", weights), **_prefixed("mask.", masks)})

    def read(self, kept: Kept) -> State:
        """The same again; raises `CheckpointError` if it does not fit the task's model."""
        facts, tensors = kept.facts, kept.tensors
        weights, masks = _of_prefix("weight.", tensors), _of_prefix("mask.", tensors)
        model = checkpoint.rebuilt(self._task, facts["structure"], weights, facts["aliases"], "the journal of the run")
        for name, item in model.named_parameters():
            item.requires_grad_(name not in facts["frozen"])
        return State(model.to(self._device).eval(), masks, tuple(facts["structure"]))


class StepForm:
    """Of the state after a step and what the report says of it."""

    def __init__(self, task: Task, device: torch.device, generator: torch.Generator) -> None:
        """`generator` is the run's: reading a step sets it to where it was after that step."""
        self._state = StateForm(task, device)
        self._generator = generator

    def write(self, value: tuple[State, StepReport]) -> Kept:
        """The state, the report and the random numbers that follow."""
        state, report = value
        kept = self._state.write(state)
        facts = {"report": report.model_dump(mode="json"), **kept.facts}
        return Kept(facts, {**kept.tensors, "generator": self._generator.get_state()})

    def read(self, kept: Kept) -> tuple[State, StepReport]:
        """The same again; raises `CheckpointError` if it does not fit the task's model."""
        state = self._state.read(kept)
        self._generator.set_state(kept.tensors["generator"])
        return state, StepReport.model_validate(kept.facts["report"])


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def _of_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
