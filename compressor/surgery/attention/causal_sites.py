"""Which attentions of a model are causal self-attention, as its calls show, and why others are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch.nn import MultiheadAttention

from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.surgery.attention.causality import evidence
from compressor.surgery.attention.declared_causality import examine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from compressor.surgery.attention.causality import Evidence
    from compressor.surgery.attention.declared_causality import Finding
    from compressor.surgery.attention.site import AttentionSite
    from compressor.surgery.refit.calibration import Batches


def rounds(sites: Sequence[AttentionSite]) -> int:
    """How often `watch` runs every batch: once for all called ones, and once for each third-party one."""
    declared = sum(site.kind == "declared" for site in sites)
    return declared + (declared < len(sites))


def watch(
    model: nn.Module, sites: Sequence[AttentionSite], examples: Batches, batches: Batches, advance: Callable[[], None]
) -> dict[str, Evidence | Finding]:
    """What inputs show of these attentions: name -> the calls on the batches, and a reason against it from either.

    Args:
        model: The model.
        sites: Those that `unfit` says nothing against.
        examples: Inputs whose calls are looked at only.
        batches: Inputs whose calls are kept.
        advance: Called after each run of the model.
    """
    called = [site.name for site in sites if site.kind != "declared"]
    shown: dict[str, Evidence | Finding] = {}
    if called:
        on_examples = evidence(model, called, examples, advance)
        on_batches = evidence(model, called, batches, advance)
        for name, seen in on_batches.items():
            shown[name] = replace(seen, reason=seen.reason or on_examples[name].reason)
    for site in sites:
        if site.kind == "declared":
            on_example = examine(model, site, examples, advance)
            on_batch = examine(model, site, batches, advance)
            shown[site.name] = replace(on_batch, reason=on_batch.reason or on_example.reason)
    return {site.name: shown[site.name] for site in sites}


def unfit(module: nn.Module, site: AttentionSite) -> str | None:
    """What speaks against an attention before it is run; None if nothing does."""
    if site.kind == "declared":
        return site.reason
    if not site.name:
        return "it is the model itself, which cannot be replaced in place"
    if type(module) not in (MultiheadAttention, CompactMultiheadAttention):
        return (
            f"`{type(module).__name__}` is third-party code; build the model on nn.MultiheadAttention, or name the "
            "parts of one that is not a subclass in `Task.attention`"
        )
    return site.reason
