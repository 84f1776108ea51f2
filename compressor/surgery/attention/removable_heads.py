"""Which attentions of a model can lose heads, and the same model with their projections in Linear layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.report import Skip
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.equivalence import forward
from compressor.surgery.refit.calibration import calls, evaluating
from compressor.surgery.units.convert import convert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.attention.parts import AttentionParts
    from compressor.surgery.attention.site import AttentionSite
    from compressor.surgery.units.choice import Amount


@dataclass(frozen=True)
class HeadCut:
    """The model with layers that can lose heads, and which of them stay."""

    model: nn.Module
    masks: Mapping[str, Tensor]
    sites: Mapping[str, AttentionSite]
    """Those that lose heads."""
    heads: Mapping[str, Tensor]
    """Name of the site -> (h,), True = stays."""

    def kept(self) -> dict[tuple[str, int], Tensor]:
        """(parameter name, axis) -> which positions stay."""
        positions: dict[tuple[str, int], Tensor] = {}
        for name, site in self.sites.items():
            positions |= site.kept(self.model, self.heads[name])
        return positions


def flexible(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    sites: Sequence[AttentionSite],
    declared: Mapping[str, AttentionParts],
    example: tuple[Tensor, ...],
    amount: Amount,
    required: Sequence[str],
) -> tuple[HeadCut, list[Skip]]:
    """The sites that can lose heads, made of Linear layers, and why the others cannot."""
    by_name = {site.name: site for site in sites}
    reasons = {site.name: site.reason or _too_few(site, amount) for site in sites}
    cut = converted(model, masks, [name for name, reason in reasons.items() if reason is None], declared)
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


def _uses(cut: HeadCut, example: tuple[Tensor, ...]) -> dict[str, str]:
    """Name of a site -> how the model calls it, if its heads cannot go because of that.

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


def converted(
    model: nn.Module, masks: Mapping[str, Tensor], names: Sequence[str], declared: Mapping[str, AttentionParts]
) -> HeadCut:
    """A copy of the model in which the named sites are made of `nn.Linear` layers."""
    of_torch = [name for name in names if isinstance(model.get_submodule(name), nn.MultiheadAttention)]
    done = convert(model, masks, of_torch)
    sites = {site.name: site for site in attention_sites(done.model, declared).attentions}
    return HeadCut(done.model, done.masks, {name: sites[name] for name in names}, {})


def narrowed(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    flexible: HeadCut,
    declared: Mapping[str, AttentionParts],
    heads: Mapping[str, Tensor],
) -> HeadCut:
    """The same with the sites that lose heads only; what loses none stays what it was."""
    of_torch = {name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    in_linear = {name for name in of_torch if not isinstance(flexible.model.get_submodule(name), nn.MultiheadAttention)}
    if in_linear <= set(heads):
        return replace(flexible, sites={name: flexible.sites[name] for name in heads}, heads=heads)
    return replace(converted(model, masks, list(heads), declared), heads=heads)
