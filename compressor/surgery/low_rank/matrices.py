"""Finds the matrices of a model that may be cut, and says why others cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.parts import LAYERS as ATTENTION_LAYERS
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.names import full_name, parameter_owners, with_holders
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.layers import LAYERS, cell_of, is_layer, parts
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.surgery.attention.known import with_known
from compressor.surgery.attention.sites import attention_sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.nn.attention.parts import AttentionParts
    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.surgery.attention.site import AttentionSite

Mode = Literal["projections", "heads", "products"]
"""How attention is cut, see `low_rank_attention`."""
Kind = Literal["linear", "query_key", "value_output", "recurrent"]
HEAD_KINDS: tuple[Kind, Kind] = ("query_key", "value_output")
"""Sites that are all heads of two matrices which are cut together."""
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class MatrixSite:
    """A matrix, or all heads of two matrices that are cut together."""

    name: str
    """What it is called in patterns and reports, such as `encoder.attn.q_proj` or `rnn.weight_hh_l0`."""
    kind: Kind
    module: str
    """The module that is replaced, in a model whose attention has been converted."""
    local: str
    """Name of the weight in it; empty for heads."""
    attention: str | None
    """The attention that it is a part of, as it is called in the model."""
    shape: tuple[int, int]
    """Of the matrix, or (features of a head, heads)."""
    paths: tuple[str, ...]
    """Further names, of the modules that hold it."""
    reason: str | None = None
    """Why it cannot be factored."""
    layers: tuple[str, ...] = ()
    """Of heads: the layers for queries, keys, values and the output."""


def find_sites(model: nn.Module, declared: Mapping[str, AttentionParts], mode: Mode) -> list[MatrixSite]:
    """Everything that may be factored, in the model's order, also what cannot be for a reason.

    Attention that nobody declares and that is known by its layers is cut in its projections in every mode: what its
    code makes of narrower heads is not known.
    """
    every = attention_sites(model, declared).attentions
    sites: list[MatrixSite] = []
    taken: set[int] = set()
    known = {name: parts for name, parts in with_known(model, declared).items() if name not in declared}
    declared_layers = {
        full_name(name, getattr(parts, role)): name for name, parts in known.items() for role in ATTENTION_LAYERS
    }
    for attention in every:
        if attention.kind == "declared" and mode == "projections":
            # They are Linear layers like others.
            declared_layers |= dict.fromkeys(_declared_names(attention), attention.name)
            continue
        sites += _attention_sites(model, attention, mode)
        if attention.kind != "declared":
            taken |= {id(part) for part in model.get_submodule(attention.name).modules()}
        else:
            taken |= {id(model.get_submodule(layer)) for layer in _declared_names(attention)}
    owners = parameter_owners(model)
    inside = {
        id(part): module for module in model.modules() if _holds_native_layers(module) for part in module.modules()
    }
    paths: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).extend(with_holders(name) if name else ())
    for name, module in model.named_modules():
        if id(module) in taken or _is_factor(model, name):
            continue
        holders = (*paths[id(module)],)
        if isinstance(module, nn.Linear):
            of = declared_layers.get(name)
            sites.append(_linear_site(name, module, holders, owners, of))
        elif is_layer(module):
            sites += _recurrent_sites(name, module, holders, owners, inside.get(id(module)))
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    return sorted(sites, key=lambda site: order.get(site.attention or site.module, -1))


def _attention_sites(model: nn.Module, attention: AttentionSite, mode: Mode) -> list[MatrixSite]:
    """The four projections, or the two products."""
    name = attention.name
    reason = attention.reason
    if not name:
        reason = "it is the model itself, which cannot be replaced in place"
    elif attention.parts is not None and attention.parts.packed:
        reason = f"one layer makes its queries, keys and values, and `mode: {mode}` cuts them to sizes of their own"
    elif attention.parts is not None and attention.parts.widths:
        reason = f"its `widths` are numbers that hold the features of the heads, which `mode: {mode}` changes"
    holders = with_holders(name) if name else ()
    if mode == "projections":
        shapes = _shapes(model, attention)
        return [
            MatrixSite(full_name(name, local), "linear", full_name(name, local), "weight", name, shape,
                 (full_name(name, local), *holders), reason)
            for local, shape in zip(_PROJECTIONS, shapes, strict=True)
        ]  # fmt: skip
    declared = attention.kind == "declared"
    layers = _declared_names(attention) if declared else tuple(full_name(name, local) for local in _PROJECTIONS)
    widths = {"query_key": attention.head_width, "value_output": attention.value_head_width}
    members = {"query_key": layers[:2], "value_output": layers[2:]}
    return [
        MatrixSite(full_name(name, kind), kind, name, "", name, (widths[kind], attention.heads),
             (full_name(name, kind), *members[kind], *holders), reason, layers)
        for kind in HEAD_KINDS
    ]  # fmt: skip


def _declared_names(attention: AttentionSite) -> tuple[str, ...]:
    """The four layers of attention that the task names."""
    return tuple(part.weight.rpartition(".")[0] for part in attention.projections)


def _shapes(model: nn.Module, attention: AttentionSite) -> list[tuple[int, int]]:
    """Of the four projections as matrices of their own."""
    module: Any = model.get_submodule(attention.name)
    if isinstance(module, CompactMultiheadAttention):
        layers = (module.q_proj, module.k_proj, module.v_proj, module.out_proj)
        return [(layer.out_features, layer.in_features) for layer in layers]
    size = module.embed_dim
    return [(size, size), (size, module.kdim), (size, module.vdim), (size, size)]


def _linear_site(
    name: str, module: nn.Linear, paths: tuple[str, ...], owners: Mapping[int, list[str]], attention: str | None
) -> MatrixSite:
    reason = None
    if not name:
        reason = "it is the model itself, which cannot be replaced in place"
    elif type(module).forward is not nn.Linear.forward:
        reason = f"a `{type(module).__name__}` has a `forward` of its own"
    elif "weight" not in module._parameters:
        reason = "its weight is computed from other parameters"
    elif len(owners[id(module.weight)]) > 1:
        reason = "its weight belongs to other modules too"
    shape = (module.out_features, module.in_features)
    extra = () if attention is None else (attention,)
    return MatrixSite(name, "linear", name, "weight", attention, shape, (*paths, *extra), reason)


def _recurrent_sites(
    name: str, module: RecurrentLayer, paths: tuple[str, ...], owners: Mapping[int, list[str]], holder: nn.Module | None
) -> list[MatrixSite]:
    reason = None
    if not name:
        reason = "it is the model itself, which cannot be replaced in place"
    elif holder is not None:
        reason = f"it is a part of a `{type(holder).__name__}`, which holds native layers only"
    elif module.proj_size:
        reason = f"an LSTM with proj_size={module.proj_size} has its recurrent matrix in low rank already"
    elif not cell_of(module).is_native:
        reason = f"a `{type(module).__name__}` normalises its products, and layers of factors lack that"
    elif type(module).forward not in [kind.forward for kind in LAYERS]:
        reason = f"a `{type(module).__name__}` has a `forward` of its own"
    sites = []
    for part in parts(module):
        for local in (part.names["weight_ih"], part.names["weight_hh"]):
            weight = module._parameters.get(local)
            why = reason
            if weight is None:
                why = why or "it is computed from other parameters"
            elif len(owners[id(weight)]) > 1:
                why = why or "it belongs to other modules too"
            tensor = getattr(module, local)
            full = full_name(name, local)
            shape = (tensor.size(0), tensor.size(1))
            sites.append(MatrixSite(full, "recurrent", name, local, None, shape, (full, *paths), why))
    return sites


def _holds_native_layers(module: nn.Module) -> bool:
    """Layers of this package around native recurrent ones, which read these layers' own attributes."""
    return isinstance(module, (GraphRecurrent, UnevenRecurrent))


def _is_factor(model: nn.Module, name: str) -> bool:
    """Whether a module is a part of a layer of factors."""
    holders = with_holders(name)[1:]
    return any(isinstance(model.get_submodule(holder), (LowRankLinear, LowRankRecurrent)) for holder in holders)
