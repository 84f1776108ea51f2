"""Removes hidden units of recurrent layers for real: smaller tensors, the outputs that zeroing them would give."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from compressor.errors import SurgeryError
from compressor.nn.seams import mark
from compressor.nn.structure import replace_record
from compressor.nn.wide_norms import WIDE_NORMS, WideNorm
from compressor.report import Change
from compressor.surgery.changes import Surgery
from compressor.surgery.equivalence import check_agreement, check_training, evaluating_on_cpu, forward
from compressor.surgery.rebuild import resize_record
from compressor.surgery.refit.compensation import refit
from compressor.surgery.trace.edges import input_name, narrow_inputs
from compressor.surgery.units.constants import find_constants, take_up
from compressor.surgery.units.failures import FailedRemoval, failing, without_failing
from compressor.surgery.units.planning import Plan, Scorer, lost_features, make_plan
from compressor.surgery.units.resize import check_resizable, resized_copy, select, tensor_of
from compressor.surgery.units.scores import magnitude
from compressor.surgery.units.silencing import forward_silenced, silenced
from compressor.surgery.units.sizes import Size, fit_sizes, sizes_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from compressor.progress import Progress
    from compressor.surgery.units.choice import Amount


_CONVERTED = 1e-4
"""Of a conversion, in any type: some normalisations compute in float32 whatever they are given."""


def prune(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    examples: Sequence[tuple[Tensor, ...]],
    *,
    names: Sequence[str],
    amount: Amount,
    scorer: Scorer | None = None,
    required: Sequence[str] | None = None,
    calibration: Sequence[tuple[Tensor, ...]] = (),
    progress: Progress | None = None,
) -> Surgery:
    """Remove the units with the lowest score from the named modules; of equal ones that with the lower index.

    Units that are tied (a shared initial state, a residual) go together. A recurrent module whose layers or directions
    come to different sizes becomes an `UnevenRecurrent`.

    Args:
        model: Left untouched; the result is a copy.
        masks: Masks of parameters by name; they are cut along.
        examples: Inputs of the model at one or more shapes. The first is traced; on all of them the smaller model must
            give what the original gives with these units silenced.
        names: Recurrent modules and cells, Linear layers and convolutions.
        amount: How much goes.
        scorer: What a unit is worth, see `scores`; the L2 norm of its weights by default.
        required: Those of `names` for which it is an error that nothing can be removed; all by default. The others are
            skipped then, with the reason.
        calibration: Batches of inputs on which the consumers of removed units are refitted (see `compensation`), after
            the comparison; none: they stay as they are.
        progress: Told about each layer that is refitted.

    Raises:
        SurgeryError: No unit, or no kept unit, would be left; a layer cannot be followed or is not reached; the smaller
            model does not agree. The message says where and why.
    """
    inputs = [tuple(part.cpu() for part in example) for example in examples]
    scorer = scorer or magnitude(2)
    required = names if required is None else required
    with evaluating_on_cpu(model) as original:

        def attempt(chosen: Sequence[str]) -> tuple[Plan, Surgery]:
            wanted = [name for name in required if name in chosen]
            plan = partial(make_plan, original, masks, inputs[0], chosen, amount, scorer, wanted)
            done = _carry_out_either(plan, inputs)
            _refuse_changed(original, done[0], inputs)
            return done

        (plan, result), failed = without_failing(names, required, attempt)
        result = replace(result, skipped=(*result.skipped, *failed))
        if calibration:
            result = _compensated(plan, result, calibration, progress)
    result.model.to(next(model.parameters()).device).train(model.training)
    return result


def _carry_out_either(make: Callable[..., Plan], inputs: Sequence[tuple[Tensor, ...]]) -> tuple[Plan, Surgery]:
    """What is planned; with whole blocks of what views take apart if that fails, or leaves fewer layers as they are."""
    plan = make()
    try:
        done = _carry_out(plan, inputs)
    except FailedRemoval:
        if not plan.trace.cut_by_size:
            raise
        try:
            return _carry_out(make(whole_blocks=True), inputs)
        except SurgeryError:
            pass  # the first reason is the one to tell
        raise
    if not plan.trace.cut_by_size or not plan.choice.skipped:
        return done
    try:
        other = _carry_out(make(whole_blocks=True), inputs)
    except SurgeryError:
        return done
    return other if len(other[1].skipped) < len(done[1].skipped) else done


def _carry_out(plan: Plan, inputs: Sequence[tuple[Tensor, ...]]) -> tuple[Plan, Surgery]:
    """The smaller model, compared with the original in which what is removed is silent."""
    with failing():
        _refuse_unresizable(plan.model, {name for name, _ in plan.kept})
        with silenced(plan):
            expected = [forward_silenced(plan, example) for example in inputs]
            constants = find_constants(plan, [plan.edges.silence(example) for example in inputs])
        smaller = resized_copy(plan.model, plan.kept)
        _narrow_seams(smaller, plan)
        take_up(smaller, plan, constants)
        norms = _cut_norms(smaller, plan)
        sizes = fit_sizes(smaller, plan.kept, partial(_check, plan, smaller, inputs, expected))
        check_training(plan.model, inputs[0], smaller, plan.edges.narrow(inputs[0]))
        return plan, _result(plan, smaller, norms, sizes)


def _refuse_changed(original: nn.Module, plan: Plan, inputs: Sequence[tuple[Tensor, ...]]) -> None:
    """Raise a `SurgeryError` if layers that were converted to more flexible ones compute something else than before.

    The comparison of the smaller model starts from the converted one and would not see it.
    """
    with failing():
        for example in inputs if plan.records else ():
            before = forward(original, example, "original")
            after = forward(plan.model, example, "converted")
            try:
                check_agreement(after, before, example, tolerance=_CONVERTED)
            except SurgeryError as error:
                names = ", ".join(f"`{record['module']}`" for record in plan.records)
                raise SurgeryError(
                    f"{names} would have to become other layers, and those compute something else here",
                    hint="choose other layers with `targets`; the model is untouched",
                ) from error


def _narrow_seams(model: nn.Module, plan: Plan) -> None:
    """Modules that become files of their own also take states of the size that they had before."""
    for edges in plan.seams:
        mark(model.get_submodule(edges.module)).cuts += (edges,)


def _check(
    plan: Plan, smaller: nn.Module, inputs: Sequence[tuple[Tensor, ...]], expected: Sequence[list[Tensor]]
) -> None:
    """Raise a `SurgeryError` if the smaller model does not give what the original does with the units silenced."""
    for example, outputs in zip(inputs, expected, strict=True):
        check_agreement(forward(smaller, plan.edges.narrow(example), "smaller"), outputs, example)


def _cut_norms(model: nn.Module, plan: Plan) -> dict[str, WideNorm]:
    """The normalisations that lost features; one without weights has its size set here."""
    norms = {}
    for name in plan.trace.norms:
        lost = lost_features(plan.trace, name, plan.choice.removed)
        norm = model.get_submodule(name)
        if lost.any() and isinstance(norm, WIDE_NORMS):
            norm.resize(int((~lost).sum()))
            norms[name] = norm
    return norms


def _refuse_unresizable(model: nn.Module, names: set[str]) -> None:
    reasons = check_resizable(model, names)
    if reasons:
        name, reason = sorted(reasons.items())[0]
        raise SurgeryError(f"`{name}` would have to shrink, but {reason}", hint="choose other layers with `targets`")


def _compensated(
    plan: Plan, result: Surgery, calibration: Sequence[tuple[Tensor, ...]], progress: Progress | None
) -> Surgery:
    """The consumers of removed units refitted, on the CPU; what was refitted and what not goes into the result."""
    batches = [tuple(part.cpu() for part in batch) for batch in calibration]
    roles = plan.trace.atoms.roles
    done = refit(plan.model, result.model, plan.kept, roles, batches, masks=result.masks, progress=progress)
    notes = tuple(
        f"{', '.join(fit.names)}: refitted on {len(batches)} batches; squared error of the sums of products "
        f"{fit.error_before:.3g} before, {fit.error_after:.3g} after"
        for fit in done.refits
    )
    return replace(result, skipped=(*result.skipped, *done.skipped), notes=(*result.notes, *notes))


def _result(plan: Plan, after: nn.Module, norms: Mapping[str, WideNorm], sizes: Sequence[Size]) -> Surgery:
    axes: dict[str, dict[int, Tensor]] = {}
    for (name, axis), mask in plan.kept.items():
        axes.setdefault(name, {})[axis] = mask
    changes = []
    for name, masked in axes.items():
        old, new = tensor_of(plan.model, name), tensor_of(after, name)
        changes.append(
            Change(
                name=name,
                action="units removed" if 0 in masked else "inputs removed",
                shape_before=tuple(old.shape),
                shape_after=tuple(new.shape),
                parameters_before=old.numel(),
                parameters_after=new.numel(),
                nonzeros_before=int(old.count_nonzero()),
                nonzeros_after=int(new.count_nonzero()),
            )
        )
    masks = {name: select(mask, axes.get(name, {})) for name, mask in plan.masks.items()}
    records = (
        *plan.records,
        resize_record({name: tensor_of(after, name).shape for name in axes}),
        *(replace_record(name, norm) for name, norm in norms.items()),
        *([sizes_record(sizes)] if sizes else []),
        *([plan.edges.record()] if plan.edges.inputs else []),
        *(edges.record() for edges in plan.seams),
    )
    if plan.edges.inputs:
        narrow_inputs(after, plan.edges)
    notes = (
        *(f"`{size.name}` is {size.after} now, {size.before} before" for size in sizes),
        *(
            f"{input_name(cut.index)} only starts a state and keeps its size, {cut.size}: the model reads "
            f"{len(cut.kept)} of its entries, and a file says which in a Gather"
            for cut in plan.edges.starting
        ),
    )
    return Surgery(after, masks, records, tuple(changes), plan.choice.skipped, notes)
