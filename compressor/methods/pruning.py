"""What methods that prune share: taking units out, and masks on weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from compressor.errors import MethodError
from compressor.methods.base import Batches, Context, State, StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from compressor.methods.patterns import Selection
    from compressor.report import Change, Skip
    from compressor.surgery.units.choice import Amount
    from compressor.surgery.units.planning import Scorer


def remove_units(
    state: State,
    context: Context,
    selection: Selection,
    amount: Amount,
    scorer: Scorer,
    *,
    calibration: Batches,
    required: Sequence[str],
) -> StepResult:
    """Take units out of a copy of the model; `calibration` refits their consumers, none leaves them as they are."""
    from compressor.surgery.units import removal

    done = removal.prune(
        state.model,
        state.masks,
        context.trace_examples(),
        names=selection.names,
        amount=amount,
        scorer=scorer,
        calibration=[inputs for inputs, _ in calibration],
        progress=context.progress,
        required=required,
    )
    known = {skip.name for skip in selection.skipped}
    return StepResult(
        State(done.model, done.masks, (*state.structure, *done.structure)),
        done.changes,
        (*selection.skipped, *(skip for skip in done.skipped if skip.name not in known)),
        notes=tuple(_with_names(note, list(context.task.inputs)) for note in done.notes),
    )


def _with_names(note: str, inputs: Sequence[str]) -> str:
    """A note in which the inputs have their names in the task."""
    from compressor.surgery.trace.edges import input_name

    for index, name in enumerate(inputs):
        note = note.replace(input_name(index), f"input `{name}`")
    return note


def with_whole_masks(state: State, names: Sequence[str]) -> State:
    """A copy of the model, and a mask for each of the weights, all True if there is none yet."""
    import torch

    model = copy.deepcopy(state.model)
    masks = dict(state.masks)
    for name in names:
        parameter = model.get_parameter(name)
        known = masks.get(name)
        masks[name] = torch.ones_like(parameter, dtype=torch.bool) if known is None else known.to(parameter.device)
    return State(model, masks, state.structure)


def masked(state: State, masks: Mapping[str, Tensor]) -> State:
    """The same model object with these weights set to zero, and all the masks."""
    from compressor.nn.masks import prune_

    prune_(state.model, masks)
    return State(state.model, {**state.masks, **masks}, state.structure)


def changes_of_masks(before: State, after: State) -> tuple[Change, ...]:
    """One change for each weight whose mask is new or smaller."""
    from compressor.surgery.changes import masked_changes

    return masked_changes(before.model, before.masks, after.model, after.masks)


def refuse_idle(skipped: Sequence[Skip], looked_at: int, hint: str) -> None:
    """Raise `MethodError` if nothing of what was looked at is left to prune."""
    if len(skipped) == looked_at:
        reasons = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped)
        raise MethodError(f"`magnitude` would change nothing ({reasons})", hint=hint)
