"""Replaces an attention by an Aaren, with what is needed to fit it to what that one gave."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.causal_masks import hidden
from compressor.nn.attention.learned_query import LearnedQuery, LearnedQueryRecord
from compressor.nn.attention.plain import plain_attention
from compressor.nn.names import full_name
from compressor.nn.structure import replace_module, replace_record
from compressor.surgery.attention.causality import time_axis
from compressor.surgery.attention.projection_watch import call_by_name
from compressor.surgery.refit.calibration import evaluating
from compressor.training.layer_fitting import Sample, Student, inputs_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.surgery.attention.causality import Evidence
    from compressor.surgery.attention.declared_causality import Attended, Finding
    from compressor.surgery.attention.site import AttentionSite


@dataclass(frozen=True)
class Conversion:
    """An Aaren that is in the model now, its query zero."""

    student: Student
    query: str
    """Name in its module of the learned query."""
    samples: tuple[Sample, ...]
    replaced: str
    """Name of the module that was replaced."""
    record: dict[str, Any]
    """Of what is new."""


def convert_multihead(
    model: nn.Module, name: str, seen: Evidence, cache: Mapping[str, int], generator: torch.Generator
) -> Conversion:
    """Replace PyTorch's attention or this package's by an `AarenAttention`, in place.

    Args:
        model: The model.
        name: Of the attention.
        seen: Its calls.
        cache: The memory cache that it gets, as the fields of a `CacheRecord`.
        generator: Draws what the gates of the cache start from.
    """
    old: Any = model.get_submodule(name)
    samples = tuple(_samples(old, seen))
    new = AarenAttention.from_attention(old, **cache)
    if new.cache is not None:
        new.cache.start(inputs_of(samples), generator)
    replace_module(model, name, new)

    def forward(sample: Sample) -> Tensor:
        x, padding = sample.x, sample.call.get("key_padding_mask")
        output: Tensor = new(x, x, x, key_padding_mask=padding)[0]
        return output

    names = tuple(key for key, _ in new.named_parameters())
    return Conversion(Student(new, names, forward), "query", samples, name, replace_record(name, new))


def convert_declared(model: nn.Module, site: AttentionSite, finding: Finding) -> Conversion:
    """Replace the layer of the queries in third-party attention by a `LearnedQuery`, in place.

    Args:
        model: The model.
        site: Of kind `declared`.
        finding: What was found out about it; `reason` is None.
    """
    parts = site.parts
    assert parts is not None
    module = model.get_submodule(site.name)
    samples = tuple(_declared_samples(module, parts.output, finding.calls))
    path = full_name(site.name, parts.query)
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    record = LearnedQueryRecord(
        num_heads=site.heads,
        input_width=layer.in_features,
        head_width=site.head_width,
        value_head_width=site.value_head_width,
        scale=finding.scale,
        bias=layer.bias is not None,
        batch_first=finding.batch_first,
        key=None if parts.packed else full_name(site.name, parts.key),
        value=None if parts.packed else full_name(site.name, parts.value),
        output=full_name(site.name, parts.output),
    )
    new = LearnedQuery.from_layer(layer, record)
    replace_module(model, path, new)
    prefix = f"{site.name}." if site.name else ""
    query = f"{parts.query}.query"
    names = (query, *(key.removeprefix(prefix) for key in site.parameters))

    def forward(sample: Sample) -> Tensor:
        with _output(module, parts.output) as outputs:
            call_by_name(module, sample.call)
        return outputs[0]

    return Conversion(Student(module, names, forward), query, samples, path, replace_record(path, new))


def _samples(module: nn.Module, seen: Evidence) -> Iterator[Sample]:
    with evaluating(module), plain_attention():
        for arguments in seen.calls:
            x: Tensor = arguments["query"]
            padding: Tensor | None = arguments.get("key_padding_mask")
            counts = torch.ones(*x.shape[:-1], 1, dtype=x.dtype, device=x.device)
            if padding is not None:
                absent = hidden(padding)
                absent = absent if time_axis(module, x) == 1 or x.dim() == 2 else absent.T
                counts = counts.masked_fill(absent[..., None], 0.0)
            target = module(**dict(arguments))[0].masked_fill(counts == 0.0, 0.0)
            yield Sample(x, {"key_padding_mask": padding}, target, counts)


def _declared_samples(module: nn.Module, output: str, seen: Sequence[Attended]) -> Iterator[Sample]:
    with evaluating(module), plain_attention():
        for call in seen:
            with _output(module, output) as outputs:
                call_by_name(module, call.arguments)
            real = call.real if call.real.shape == call.x.shape[:2] else call.real.T
            counts = real[..., None].to(call.x.dtype)
            yield Sample(call.x, call.arguments, outputs[0].masked_fill(counts == 0.0, 0.0), counts)


@contextmanager
def _output(module: nn.Module, path: str) -> Iterator[list[Tensor]]:
    """What a layer inside gives while this lasts."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append(output)

    with module.get_submodule(path).register_forward_hook(keep):
        yield outputs


def carried_masks(name: str, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks of an attention called `name`, by the names that the same weights have in an Aaren.

    `nn.MultiheadAttention` has one weight for queries, keys and values or three with names of their own.
    """
    carried: dict[str, Tensor] = {}
    prefix = f"{name}." if name else ""
    for key, mask in masks.items():
        if not key.startswith(prefix):
            continue
        local = key.removeprefix(prefix)
        if local in ("in_proj_weight", "in_proj_bias"):
            kind = local.removeprefix("in_proj_")
            parts = zip("qkv", mask.chunk(3), strict=True)
            carried |= {f"{letter}_proj.{kind}": part.clone() for letter, part in parts}
        else:
            carried[local.replace("_proj_weight", "_proj.weight")] = mask
    return carried
