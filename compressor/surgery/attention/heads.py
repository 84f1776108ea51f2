"""Removes whole heads of multi-head attention for real: smaller projections and a smaller number of heads.

What comes out is what the original gives when the removed heads add nothing to the output projection.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import CheckpointError, SurgeryError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.record import LayerRecord, Size, parse
from compressor.nn.structure import replace_record
from compressor.report import Change, Skip
from compressor.surgery.attention import head_scores
from compressor.surgery.attention.sites import attention_sites, set_heads
from compressor.surgery.comparison import check_agreement, evaluating_on_cpu, forward
from compressor.surgery.refit.calibration import calls, evaluating
from compressor.surgery.refit.compensation import refit
from compressor.surgery.units import resize
from compressor.surgery.units.choice import Layer, choose
from compressor.surgery.units.convert import convert
from compressor.surgery.units.resize import resized_copy, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from compressor.nn.attention.parts import AttentionParts
    from compressor.progress import Progress
    from compressor.surgery.attention.head_scores import HeadScorer
    from compressor.surgery.attention.sites import AttentionSite
    from compressor.surgery.trace.atoms import Role
    from compressor.surgery.units.choice import Amount

KIND = "heads"
"""The kind of the records of attention that the task names; the others are records of replaced layers."""
_HINT = "are the heads one behind the other in the layers, as `attention` of the task says?"


@dataclass(frozen=True)
class HeadSurgery:
    """A model with fewer heads, and what was done to it."""

    model: nn.Module
    masks: dict[str, Tensor]
    structure: tuple[dict[str, Any], ...]
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...]
    notes: tuple[str, ...]
    before: int
    """Heads of the whole model."""
    after: int


@dataclass(frozen=True)
class _Cut:
    """The model with layers that can lose heads, and which of them stay."""

    model: nn.Module
    masks: Mapping[str, Tensor]
    sites: Mapping[str, AttentionSite]
    """Those that lose heads."""
    heads: Mapping[str, Tensor]
    """Name of the site -> (h,), True = stays."""

    def kept(self) -> dict[tuple[str, int], Tensor]:
        """(parameter name, axis) -> which positions stay."""
        found: dict[tuple[str, int], Tensor] = {}
        for name, site in self.sites.items():
            found |= site.kept(self.model, self.heads[name])
        return found


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
        every = attention_sites(original, declared).found
        named = [site for site in every if site.name in names]
        flexible, skipped = _flexible(original, masks, named, declared, inputs[0], amount, required)
        heads, left_alone = _choose(flexible, amount, scorer, required)
        cut = _narrowed(original, masks, flexible, declared, heads)
        with _silenced(cut):
            expected = [forward(cut.model, example, "silenced") for example in inputs]
        smaller = resized_copy(cut.model, cut.kept())
        for name, site in cut.sites.items():
            set_heads(smaller, site, int(heads[name].sum()))
        for example, outputs in zip(inputs, expected, strict=True):
            check_agreement(forward(smaller, example, "smaller"), outputs, example, what="heads", hint=_HINT)
        result = _result(cut, smaller, (*skipped, *left_alone), sum(site.heads for site in every))
        if calibration:
            result = _compensated(cut, result, calibration, progress)
    result.model.to(next(model.parameters()).device).train(model.training)
    return result


def apply_heads_record(model: nn.Module, record: Mapping[str, Any], declared: Mapping[str, AttentionParts]) -> None:
    """Give an attention that the task names the number of heads of a record; its weights are undefined afterwards.

    Which attributes are set is the task's to say, never the record's.

    Raises:
        CheckpointError: The record is not valid, or the task names no such attention.
    """
    found = parse(_Record, record)
    site = next((site for site in attention_sites(model, declared).found if site.name == found.module), None)
    if found.kind != KIND or site is None or site.kind != "declared" or site.reason or found.heads > site.heads:
        has = "is none" if site is None or site.kind != "declared" else f"has {site.heads} heads"
        raise CheckpointError(
            f"the record leaves {found.heads} heads of the attention `{found.module}`, which {has} by the task's "
            "`attention`",
            hint="load it with the task that it was made from",
        )
    replacements: dict[int, Tensor] = {}
    for (name, axis), stays in site.kept(model, torch.arange(site.heads) < found.heads).items():
        old = model.get_parameter(name)
        shape = list(replacements.get(id(old), old).shape)
        shape[axis] = int(stays.sum())
        replacements[id(old)] = torch.empty(shape, dtype=old.dtype, device=old.device)
    resize.replace(model, replacements)
    resize.refresh(model)
    set_heads(model, site, found.heads)


class _Record(LayerRecord):
    kind: str
    module: str
    heads: Size


def _flexible(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    sites: Sequence[AttentionSite],
    declared: Mapping[str, AttentionParts],
    example: tuple[Tensor, ...],
    amount: Amount,
    required: Sequence[str],
) -> tuple[_Cut, list[Skip]]:
    """The sites that can lose heads, made of Linear layers, and why the others cannot."""
    by_name = {site.name: site for site in sites}
    reasons = {site.name: site.reason or _too_few(site, amount) for site in sites}
    cut = _converted(model, masks, [name for name, reason in reasons.items() if reason is None], declared)
    reasons |= _uses(cut, example)
    skipped = [Skip(name=name, reason=reason) for name, reason in reasons.items() if reason is not None]
    refused = [skip for skip in skipped if skip.name in required] or (skipped if len(skipped) == len(sites) else [])
    if refused:
        listed = "; ".join(f"`{skip.name}`: {skip.reason}" for skip in refused)
        small = all(reasons[skip.name] == _too_few(by_name[skip.name], amount) for skip in refused)
        change = "raise `ratio` or lower `keep`, or " if small else ""
        raise SurgeryError(
            f"no heads can be removed ({listed})", hint=f"{change}choose others with `targets` and `ignore`"
        )
    return replace(cut, sites={name: site for name, site in cut.sites.items() if reasons[name] is None}), skipped


def _too_few(site: AttentionSite, amount: Amount) -> str | None:
    if amount.keep is not None and site.heads <= amount.keep:
        return f"it has {site.heads} heads, and `keep` asks for {amount.keep}"
    if site.heads == 1:
        return "it has one head, and one has to stay"
    if amount.scope == "layer" and not amount.removed_of(site.heads):
        return f"{amount.ratio:g} of its {site.heads} heads, rounded down, is none"
    return None


def _uses(cut: _Cut, example: tuple[Tensor, ...]) -> dict[str, str]:
    """Name of a site -> how the model calls it, where its heads cannot go because of that.

    Looked at with the converted layers: PyTorch's fused encoder layer does not call its attention.
    """
    # Raises with the place where it cannot run, such as a line that takes weights out of PyTorch's attention.
    forward(cut.model, example, "converted", hint="name the attention under `ignore`; the model is untouched")
    with evaluating(cut.model):
        seen = calls(cut.model, list(cut.sites), example)
    reasons = {}
    for name, site in cut.sites.items():
        arguments = [call.arguments for other, call in seen if other == name]
        if not arguments:
            reasons[name] = "it is not called in the model's forward pass"
        elif site.kind != "declared" and (reason := next(filter(None, map(_misused, arguments)), None)):
            reasons[name] = reason
    return reasons


def _misused(arguments: Mapping[str, Any]) -> str | None:
    mask = arguments.get("attn_mask")
    if mask is not None and mask.dim() == 3:
        return f"its attn_mask of shape {tuple(mask.shape)} is made for each head outside of it"
    if arguments.get("need_weights", True) and not arguments.get("average_attn_weights", True):
        return "the model takes the attention weights of each head out (average_attn_weights=False)"
    return None


def _choose(
    cut: _Cut, amount: Amount, scorer: HeadScorer, required: Sequence[str]
) -> tuple[dict[str, Tensor], tuple[Skip, ...]]:
    """Which heads stay at the sites that lose some, and the sites that lose none."""
    sites = list(cut.sites.values())
    tracer = head_scores.trace(cut.model, sites)
    layers = [Layer(site.name, head_scores.groups(site, tracer), unit="head") for site in sites]
    choice = choose(layers, scorer(cut.model, sites, tracer), {}, amount, frozenset(required))
    heads, skipped = {}, list(choice.skipped)
    for layer in layers:
        stays = ~torch.isin(torch.from_numpy(layer.groups), torch.from_numpy(choice.removed))
        if bool(stays.all()):
            skipped.append(Skip(name=layer.module, reason="none of its heads is among the lowest of all"))
        else:
            heads[layer.module] = stays
    return heads, tuple(skipped)


def _converted(
    model: nn.Module, masks: Mapping[str, Tensor], names: Sequence[str], declared: Mapping[str, AttentionParts]
) -> _Cut:
    """A copy of the model in which the named sites are made of `nn.Linear` layers."""
    of_torch = [name for name in names if isinstance(model.get_submodule(name), nn.MultiheadAttention)]
    done = convert(model, masks, of_torch)
    sites = {site.name: site for site in attention_sites(done.model, declared).found}
    return _Cut(done.model, done.masks, {name: sites[name] for name in names}, {})


def _narrowed(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    flexible: _Cut,
    declared: Mapping[str, AttentionParts],
    heads: Mapping[str, Tensor],
) -> _Cut:
    """The same with the sites that lose heads only; what loses none stays what it was."""
    of_torch = {name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    converted = {name for name in of_torch if not isinstance(flexible.model.get_submodule(name), nn.MultiheadAttention)}
    if converted <= set(heads):
        return replace(flexible, sites={name: flexible.sites[name] for name in heads}, heads=heads)
    return replace(_converted(model, masks, list(heads), declared), heads=heads)


@contextmanager
def _silenced(cut: _Cut) -> Iterator[None]:
    """The removed heads add nothing to the output while this lasts, and averages of weights leave them out."""
    saved = []
    with ExitStack() as stack:
        try:
            for name, site in cut.sites.items():
                weight, stays = cut.model.get_parameter(site.output.weight).detach(), cut.heads[name]
                columns = (~stays.repeat_interleave(site.output.width)).nonzero().flatten()
                saved.append((weight, columns, weight.index_select(1, columns)))
                weight.index_fill_(1, columns, 0.0)
                module = cut.model.get_submodule(name)
                if isinstance(module, CompactMultiheadAttention):
                    stack.enter_context(_averaging(module, stays))
            yield
        finally:
            for weight, columns, values in saved:
                weight.index_copy_(1, columns, values)


@contextmanager
def _averaging(module: CompactMultiheadAttention, stays: Tensor) -> Iterator[None]:
    """The mean of the attention weights is taken over these heads only while this lasts."""
    original: Callable[..., tuple[Tensor, Tensor | None]] = module.forward
    signature = inspect.signature(original)

    def averaged(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        given = signature.bind(*args, **kwargs).arguments
        output, weights = original(**(given | {"average_attn_weights": False}))
        return output, None if weights is None else weights[..., stays, :, :].mean(-3)

    module.forward = averaged  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


def _result(cut: _Cut, smaller: nn.Module, skipped: tuple[Skip, ...], before: int) -> HeadSurgery:
    axes: dict[str, dict[int, Tensor]] = {}
    for (name, axis), mask in cut.kept().items():
        axes.setdefault(name, {})[axis] = mask
    masks = {name: select(mask, axes.get(name, {})) for name, mask in cut.masks.items()}
    lost = sum(int((~stays).sum()) for stays in cut.heads.values())
    return HeadSurgery(
        smaller,
        masks,
        tuple(_record(smaller, cut.sites[name], int(stays.sum())) for name, stays in cut.heads.items()),
        tuple(_change(cut, smaller, name) for name in cut.sites),
        skipped,
        (),
        before,
        before - lost,
    )


def _record(model: nn.Module, site: AttentionSite, heads: int) -> dict[str, Any]:
    module = model.get_submodule(site.name)
    if isinstance(module, CompactMultiheadAttention):
        return replace_record(site.name, module)
    return {"kind": KIND, "module": site.name, "heads": heads}


def _change(cut: _Cut, smaller: nn.Module, name: str) -> Change:
    site, stays = cut.sites[name], cut.heads[name]
    old = [cut.model.get_parameter(parameter) for parameter in site.parameters]
    new = [smaller.get_parameter(parameter) for parameter in site.parameters]
    listed = ", ".join(str(head) for head in stays.nonzero().flatten().tolist())
    return Change(
        name=name,
        action="heads removed",
        parameters_before=sum(part.numel() for part in old),
        parameters_after=sum(part.numel() for part in new),
        nonzeros_before=sum(int(part.count_nonzero()) for part in old),
        nonzeros_after=sum(int(part.count_nonzero()) for part in new),
        note=f"{site.heads} -> {int(stays.sum())} heads of {site.head_width}; kept {listed}",
    )


def _compensated(
    cut: _Cut, result: HeadSurgery, calibration: Sequence[tuple[Tensor, ...]], progress: Progress | None
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
