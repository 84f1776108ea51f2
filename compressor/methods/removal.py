"""What methods that prune share: taking units out, masks on weights, and the changes that come of it."""

from __future__ import annotations

import copy
from itertools import islice
from typing import TYPE_CHECKING, Any

from compressor.errors import MethodError
from compressor.methods.base import Context, State, StepResult
from compressor.report import Change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.methods.targets import Selection
    from compressor.surgery.units.choice import Amount
    from compressor.surgery.units.planning import Scorer

_WITHOUT_BATCHES = "give batches, or set `compensate: false` and a score that is not measured on data"
Batches = list[tuple[tuple["Tensor", ...], Any]]


def first_batches(context: Context, count: int, *, hint: str = _WITHOUT_BATCHES) -> Batches:
    """The first training batches, drawn by a generator of their own so that retraining is unaffected.

    Raises:
        MethodError: The task gives none.
    """
    import torch

    generator = torch.Generator().manual_seed(context.generator.initial_seed())
    batches = list(islice(context.task.batches(generator), 2 if context.quick else count))
    if not batches:
        raise MethodError(
            "the task's `batches` gave none, and this step measures on training batches",
            hint=hint,
        )
    return batches


def trace_examples(context: Context) -> list[tuple[Tensor, ...]]:
    """Inputs to trace at a short length, where the trace is cheap, and to compare at the typical one too."""
    task = context.task
    return [task.example(2, min(task.length, max(task.min_length, 3))), task.example(3, task.length)]


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
        trace_examples(context),
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
        notes=done.notes,
    )


def refuse_non_finite(model: nn.Module, names: Sequence[str]) -> None:
    """Raise `MethodError` where a parameter holds NaN or infinity: its magnitudes have no order."""
    for name in names:
        parameter = model.get_parameter(name)
        wrong = parameter.numel() - int(parameter.isfinite().sum())
        if wrong:
            raise MethodError(
                f"`{name}` holds {wrong} values that are NaN or infinite", hint="check the checkpoint, or train again"
            )


def with_whole_masks(state: State, names: Sequence[str]) -> State:
    """A copy of the model, and a mask for each of the weights, all True where there is none yet."""
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


def masked_changes(before: State, after: State) -> tuple[Change, ...]:
    """One change for each weight whose mask is new or smaller."""
    old = dict(before.model.named_parameters())
    changes: list[Change] = []
    for name, mask in after.masks.items():
        known = before.masks.get(name)
        pruned_before = 0 if known is None else int((~known).sum())
        pruned = int((~mask).sum())
        if pruned == pruned_before:
            continue
        changes.append(
            Change(
                name=name,
                action="masked",
                shape_before=tuple(mask.shape),
                shape_after=tuple(mask.shape),
                parameters_before=mask.numel(),
                parameters_after=mask.numel(),
                nonzeros_before=int(old[name].count_nonzero()),
                nonzeros_after=int(after.model.get_parameter(name).count_nonzero()),
                note=f"{pruned} of {mask.numel()} pruned",
            )
        )
    return tuple(changes)
