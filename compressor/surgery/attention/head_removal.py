"""Removes whole heads of multi-head attention for real: smaller projections and a smaller number of heads.

What comes out is what the original gives when the removed heads add nothing to the output projection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.report import Change, Skip
from compressor.surgery.attention import head_scores
from compressor.surgery.attention.declared_sites import set_heads
from compressor.surgery.attention.head_records import heads_record
from compressor.surgery.attention.head_silencing import silenced
from compressor.surgery.attention.removable_heads import flexible, narrowed
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.changes import Surgery, change, size_of
from compressor.surgery.equivalence import check_agreement, evaluating_on_cpu, forward
from compressor.surgery.refit.compensation import refit
from compressor.surgery.units.choice import Layer
from compressor.surgery.units.choosing import choose
from compressor.surgery.units.failures import failing, without_failing
from compressor.surgery.units.resize import resized_copy, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.attention.parts import AttentionParts
    from compressor.progress import Progress
    from compressor.surgery.attention.head_scores import HeadScorer
    from compressor.surgery.attention.removable_heads import HeadCut
    from compressor.surgery.trace.atoms import Role
    from compressor.surgery.units.choice import Amount

_HINT = "are the heads one behind the other in the layers, as `attention` of the task says?"


@dataclass(frozen=True, kw_only=True)
class HeadSurgery(Surgery):
    """A model with fewer heads, and what was done to it."""

    before: int
    """Heads of the whole model."""
    after: int


def prune(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    examples: Sequence[tuple[Tensor, ...]],
    *,
    names: Sequence[str],
    declared: Mapping[str, AttentionParts],
    amount: Amount,
    scorer: HeadScorer,
    required: Sequence[str] = (),
    calibration: Sequence[tuple[Tensor, ...]] = (),
    progress: Progress | None = None,
) -> HeadSurgery:
    """Remove the heads with the lowest score from the named attentions; of equal ones that with the lower index.

    An `nn.MultiheadAttention` that loses heads becomes a `CompactMultiheadAttention`; others keep their class.

    Args:
        model: Left untouched; the result is a copy.
        masks: Masks of parameters by name; they are cut along.
        examples: Inputs of the model at one or more shapes; on all of them the smaller model must give what the
            original gives with these heads silenced.
        names: Names of sites, see `attention_sites`.
        declared: What the task says of attention that is not PyTorch's.
        amount: How much goes.
        scorer: What a head is worth, see `head_scores`.
        required: Those of `names` for which it is an error that nothing can be removed; the others are skipped then.
        calibration: Batches of inputs on which the output projections are refitted, see `compensation`; none: they
            stay as they are.
        progress: Told about each projection that is refitted.

    Raises:
        SurgeryError: Nothing can go, or the smaller model does not agree; the message says where and why.
    """
    inputs = [tuple(part.cpu() for part in example) for example in examples]
    with evaluating_on_cpu(model) as original:
        every = attention_sites(original, declared).attentions

        def attempt(chosen: Sequence[str]) -> tuple[HeadCut, HeadSurgery]:
            named = [site for site in every if site.name in chosen]
            wanted = [name for name in required if name in chosen]
            movable, skipped = flexible(original, masks, named, declared, inputs[0], amount, wanted)
            heads, left_alone = _choose(movable, amount, scorer, wanted)
            cut = narrowed(original, masks, movable, declared, heads)
            with failing():
                smaller = _checked(cut, inputs)
            return cut, _result(cut, smaller, (*skipped, *left_alone), sum(site.heads for site in every))

        (cut, result), failed = without_failing(names, required, attempt, what="heads")
        result = replace(result, skipped=(*result.skipped, *failed))
        if calibration:
            result = _compensated(cut, result, calibration, progress)
    result.model.to(next(model.parameters()).device).train(model.training)
    return result


def _checked(cut: HeadCut, inputs: Sequence[tuple[Tensor, ...]]) -> nn.Module:
    """The smaller model, compared with the original in which what is removed is silent."""
    with silenced(cut):
        expected = [forward(cut.model, example, "silenced") for example in inputs]
    smaller = resized_copy(cut.model, cut.kept())
    for name, site in cut.sites.items():
        set_heads(smaller, site, int(cut.heads[name].sum()))
    for example, outputs in zip(inputs, expected, strict=True):
        check_agreement(forward(smaller, example, "smaller"), outputs, example, what="heads", hint=_HINT)
    return smaller


def _choose(
    cut: HeadCut, amount: Amount, scorer: HeadScorer, required: Sequence[str]
) -> tuple[dict[str, Tensor], tuple[Skip, ...]]:
    """Which heads stay at the sites that lose some, and the sites that lose none."""
    sites = list(cut.sites.values())
    tracer = head_scores.trace(cut.model, sites)
    layers = [Layer(site.name, head_scores.groups(site, tracer), unit="head") for site in sites]
    choice = choose(layers, scorer(cut.model, sites, tracer), {}, amount, frozenset(required))
    heads, skipped = {}, list(choice.skipped)
    for layer in layers:
        stays = ~torch.isin(torch.from_numpy(layer.groups), torch.from_numpy(choice.removed))
        if not bool(stays.all()):
            heads[layer.module] = stays
        elif layer.module not in {skip.name for skip in choice.skipped}:
            skipped.append(Skip(name=layer.module, reason="none of its heads is among the lowest of all"))
    return heads, tuple(skipped)


def _result(cut: HeadCut, smaller: nn.Module, skipped: tuple[Skip, ...], before: int) -> HeadSurgery:
    axes: dict[str, dict[int, Tensor]] = {}
    for (name, axis), mask in cut.kept().items():
        axes.setdefault(name, {})[axis] = mask
    masks = {name: select(mask, axes.get(name, {})) for name, mask in cut.masks.items()}
    lost = sum(int((~stays).sum()) for stays in cut.heads.values())
    return HeadSurgery(
        smaller,
        masks,
        tuple(heads_record(smaller, cut.sites[name], int(stays.sum())) for name, stays in cut.heads.items()),
        tuple(_change(cut, smaller, name) for name in cut.sites),
        skipped,
        before=before,
        after=before - lost,
    )


def _change(cut: HeadCut, smaller: nn.Module, name: str) -> Change:
    site, stays = cut.sites[name], cut.heads[name]
    old = [cut.model.get_parameter(parameter) for parameter in site.parameters]
    new = [smaller.get_parameter(parameter) for parameter in site.parameters]
    listed = ", ".join(str(head) for head in stays.nonzero().flatten().tolist())
    note = f"{site.heads} -> {int(stays.sum())} heads of {site.head_width}; kept {listed}"
    return change(name, "heads removed", size_of(old), size_of(new), note=note)


def _compensated(
    cut: HeadCut, result: HeadSurgery, calibration: Sequence[tuple[Tensor, ...]], progress: Progress | None
) -> HeadSurgery:
    """The output projections refitted to what all heads gave, on the CPU."""
    batches = [tuple(part.cpu() for part in batch) for batch in calibration]
    outputs = {(site.output.weight, 1) for site in cut.sites.values()}
    kept = cut.kept()
    roles: dict[tuple[str, int], Role] = {key: "in" if key in outputs else "out" for key in kept}
    done = refit(cut.model, result.model, kept, roles, batches, masks=result.masks, progress=progress)
    notes = tuple(
        f"{', '.join(fit.names)}: refitted on {len(batches)} batches; squared error of the sums of products "
        f"{fit.error_before:.3g} before, {fit.error_after:.3g} after"
        for fit in done.refits
    )
    return replace(result, skipped=(*result.skipped, *done.skipped), notes=notes)
