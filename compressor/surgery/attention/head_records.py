"""The records of attention that has lost heads, and how they are applied before weights are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.record import LayerRecord, Size, of_another_task, parse
from compressor.nn.structure import replace_record
from compressor.surgery.attention.declared_sites import set_heads
from compressor.surgery.attention.known import with_known
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.units import resize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from compressor.nn.attention.parts import AttentionParts
    from compressor.surgery.attention.site import AttentionSite

KIND = "heads"
"""The kind of the records of attention that the task names; the others are records of replaced layers."""


class HeadCountRecord(LayerRecord):
    """How many heads are left of an attention that the task names."""

    kind: str
    module: str
    heads: Size


def heads_record(model: nn.Module, site: AttentionSite, heads: int) -> dict[str, Any]:
    """The JSON record of an attention that has lost heads."""
    module = model.get_submodule(site.name)
    if isinstance(module, CompactMultiheadAttention):
        return replace_record(site.name, module)
    return {"kind": KIND, "module": site.name, "heads": heads}


def apply_heads_record(model: nn.Module, record: Mapping[str, Any], declared: Mapping[str, AttentionParts]) -> None:
    """Give an attention that the task names the number of heads of a record; its weights are undefined afterwards.

    Which attributes are set is the task's to say, never the record's.

    Raises:
        CheckpointError: The record is not valid, or the task names no such attention.
    """
    fields = parse(HeadCountRecord, record)
    every = attention_sites(model, with_known(model, declared)).attentions
    site = next((site for site in every if site.name == fields.module), None)
    if fields.kind != KIND or site is None or site.kind != "declared" or site.reason or fields.heads > site.heads:
        has = "is none" if site is None or site.kind != "declared" else f"has {site.heads} heads"
        raise of_another_task(
            f"the record leaves {fields.heads} heads of the attention `{fields.module}`, which {has} by the task's "
            "`attention`"
        )
    replacements: dict[int, Tensor] = {}
    for (name, axis), stays in site.kept(model, torch.arange(site.heads) < fields.heads).items():
        old = model.get_parameter(name)
        shape = list(replacements.get(id(old), old).shape)
        shape[axis] = int(stays.sum())
        replacements[id(old)] = torch.empty(shape, dtype=old.dtype, device=old.device)
    resize.replace(model, replacements)
    resize.refresh(model)
    set_heads(model, site, fields.heads)
