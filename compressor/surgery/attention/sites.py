"""Finds every multi-head attention in a model: PyTorch's, this package's, and those that the task names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from compressor.errors import TaskError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.names import full_name, parameter_owners
from compressor.report import Skip
from compressor.surgery.attention.declared_sites import declared_modules, declared_site, label
from compressor.surgery.attention.site import AttentionSite, Projection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.attention.parts import AttentionParts


@dataclass(frozen=True)
class Sites:
    """What was found."""

    attentions: tuple[AttentionSite, ...]
    """In the model's order; also those that cannot be changed, with the reason."""
    skipped: tuple[Skip, ...]
    """Modules that the task names and that are not as it says any more, since an earlier step changed them."""


def attention_sites(model: nn.Module, declared: Mapping[str, AttentionParts] | None = None) -> Sites:
    """Every multi-head attention of the model.

    Args:
        model: The model, as it is now.
        declared: What the task says of third-party attention: glob of module names (or `re:` and a regular
            expression) -> its parts. The first pattern that fits a module counts.
    """
    attentions: list[AttentionSite] = []
    skipped: list[Skip] = []
    parts_of = declared_modules(model, declared or {})
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            attentions.append(_of_torch(name, module))
        elif isinstance(module, CompactMultiheadAttention):
            foreign = [
                f"its `{path}` is a `{type(part).__name__}`, not an nn.Linear"
                for path, part in module.named_children()
                if not isinstance(part, (nn.Linear, LowRankLinear))
            ]
            if foreign:
                skipped.append(Skip(name=name, reason=foreign[0]))
            else:
                attentions.append(_of_ours(name, module))
        elif id(module) in parts_of:
            try:
                attentions.append(declared_site(name, module, parts_of[id(module)]))
            except TaskError as error:
                skipped.append(Skip(name=name, reason=error.message))
    return Sites(tuple(_with_reasons(model, attentions)), tuple(skipped))


def _of_torch(name: str, module: nn.MultiheadAttention) -> AttentionSite:
    heads, width, size = module.num_heads, module.head_dim, module.embed_dim
    if module._qkv_same_embed_dim:
        weights = [(full_name(name, "in_proj_weight"), index * size) for index in range(3)]
    else:
        weights = [(full_name(name, f"{letter}_proj_weight"), 0) for letter in "qkv"]
    bias = None if module.in_proj_bias is None else full_name(name, "in_proj_bias")
    query, key, value = (
        Projection(weight, bias, 0, start, i * size, heads, width) for i, (weight, start) in enumerate(weights)
    )
    output_bias = None if module.out_proj.bias is None else full_name(name, "out_proj.bias")
    output = Projection(full_name(name, "out_proj.weight"), output_bias, 1, 0, 0, heads, width)
    reason = None
    if type(module).forward is not nn.MultiheadAttention.forward:
        reason = f"it is a `{type(module).__name__}` with a `forward` of its own"
    for option, present in (("add_bias_kv", module.bias_k is not None), ("add_zero_attn", module.add_zero_attn)):
        if present:
            reason = f"it has {option}=True"
    return AttentionSite(name, "multihead", heads, (query, key, value, output), reason=reason)


def _of_ours(name: str, module: CompactMultiheadAttention) -> AttentionSite:
    layers = {local: full_name(name, f"{local}_proj") for local in ("q", "k", "v", "out")}
    query, key, value = (
        Projection.of_rows(layers[local], module.get_submodule(f"{local}_proj"), module.num_heads, width)
        for local, width in (("q", module.head_dim), ("k", module.head_dim), ("v", module.value_head_dim))
    )
    output = Projection.of_columns(layers["out"], module.out_proj, module.num_heads, module.value_head_dim)
    factored = [path for path in layers.values() if not isinstance(_submodule_of(module, path), nn.Linear)]
    reason = f"`{factored[0]}` is in low rank already" if factored else None
    return AttentionSite(name, "compact", module.num_heads, (query, key, value, output), reason=reason)


def _submodule_of(module: nn.Module, path: str) -> nn.Module:
    """The layer of an attention, by its full name."""
    return module.get_submodule(path.rpartition(".")[2])


def _with_reasons(model: nn.Module, sites: Sequence[AttentionSite]) -> list[AttentionSite]:
    """The sites; those whose weights belong to something else too cannot be changed."""
    owners = {key: {label(name) for name in names} for key, names in parameter_owners(model).items()}
    users: dict[int, set[str]] = {}
    for site in sites:
        for module in {id(m): m for m in (_module_of(model, name) for name in site.parameters)}.values():
            users.setdefault(id(module), set()).add(label(site.name))
    return [_with_reason(model, site, owners, users) for site in sites]


def _with_reason(
    model: nn.Module, site: AttentionSite, owners: Mapping[int, set[str]], users: Mapping[int, set[str]]
) -> AttentionSite:
    if site.reason is not None:
        return site
    for name in site.parameters:
        module = _module_of(model, name)
        parameter = module._parameters.get(name.rpartition(".")[2])
        if parameter is None:
            return replace(site, reason=f"its weight `{name}` is computed from other parameters")
        sharing = owners[id(parameter)] if len(owners[id(parameter)]) > 1 else users[id(module)] - {label(site.name)}
        if sharing:
            reason = f"its weight `{name}` belongs to {', '.join(sorted(sharing))} as well"
            return replace(site, reason=reason)
    return site


def _module_of(model: nn.Module, parameter: str) -> nn.Module:
    return model.get_submodule(parameter.rpartition(".")[0])
