"""Finds the matrices of a model that may be cut, sees what they are applied to, and puts factors in their place."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import MethodError, SurgeryError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.head_factorisation import (
    HeadWeights,
    cut_query_key,
    cut_value_output,
    narrowed,
    query_key_pairs,
    value_output_pairs,
)
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.factorisation import Factors, HeadPairs, Inputs, Spectrum, largest_saving_rank
from compressor.nn.least_squares import Moments
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.layers import LAYERS, is_layer, parts
from compressor.nn.structure import full_name, replace_module, replace_record
from compressor.surgery.attention.sites import AttentionSite, attention_sites
from compressor.surgery.comparison import check_agreement, forward
from compressor.surgery.rebuild import resize_record
from compressor.surgery.refit.calibration import Call, consumed, evaluating, produced
from compressor.surgery.trace.tracer import without_fast_path
from compressor.surgery.units.convert import convert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from compressor.nn.attention.parts import AttentionParts
    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.progress import Bar

Mode = Literal["projections", "heads", "products"]
Kind = Literal["linear", "query_key", "value_output", "recurrent"]
Key = tuple[str, str]
"""Module name and what of it: the local name of a weight, for its inputs, or `output`."""
_JOINT: dict[str, Kind] = {"query_key": "query_key", "value_output": "value_output"}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class Site:
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


@dataclass
class Cut:
    """A site with all that is known about every rank of it."""

    site: Site
    dense: int
    """Parameters as it is, biases that shrink with it included."""
    per_rank: int
    losses: list[float]
    """Part of the energy that is lost at rank 0, 1, ..., full."""
    most: int
    """The largest rank that saves parameters."""
    spectrum: Spectrum | HeadPairs
    moments: Moments | None = None

    @property
    def full(self) -> int:
        """The rank at which nothing is lost."""
        return len(self.losses) - 1


@dataclass
class Factored:
    """A model with factors in it."""

    model: nn.Module
    masks: dict[str, Tensor]
    records: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Parameters whose masks could not go along."""


def find_sites(model: nn.Module, declared: Mapping[str, AttentionParts], mode: Mode) -> list[Site]:
    """Everything that may be factored, in the model's order, also what cannot be for a reason."""
    attentions = attention_sites(model, declared)
    sites: list[Site] = []
    taken: set[int] = set()
    for attention in attentions.found:
        sites += _attention_sites(model, attention, mode)
        if attention.kind != "declared":
            taken |= {id(part) for part in model.get_submodule(attention.name).modules()}
        elif mode != "projections":
            taken |= {id(model.get_submodule(layer)) for layer in _declared_names(attention)}
    declared_layers = {
        name.rpartition(".")[0]: attention
        for attention in attentions.found
        if attention.kind == "declared" and mode == "projections"
        for name in (part.weight for part in attention.projections)
    }
    owners = _owners(model)
    inside = {
        id(part): module for module in model.modules() if _holds_native_layers(module) for part in module.modules()
    }
    paths: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).extend(_path_and_holders(name))
    for name, module in model.named_modules():
        if id(module) in taken or _is_factor(model, name):
            continue
        found = (*paths[id(module)],)
        if isinstance(module, nn.Linear):
            of = declared_layers.get(name)
            sites.append(_linear_site(name, module, found, owners, of))
        elif is_layer(module):
            sites += _recurrent_sites(name, module, found, owners, inside.get(id(module)))
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    return sorted(sites, key=lambda site: order.get(site.attention or site.module, -1))


def _attention_sites(model: nn.Module, attention: AttentionSite, mode: Mode) -> list[Site]:
    """The four projections, or the two products."""
    name = attention.name
    if attention.kind == "declared" and mode == "projections":
        return []  # they are Linear layers like others
    reason = attention.reason
    if not name:
        reason = "it is the model itself, which cannot be replaced in place"
    elif attention.parts is not None and attention.parts.packed:
        reason = f"one layer makes its queries, keys and values, and `mode: {mode}` cuts them to sizes of their own"
    elif attention.parts is not None and attention.parts.widths:
        reason = f"its `widths` are numbers that hold the features of the heads, which `mode: {mode}` changes"
    holders = _path_and_holders(name)
    if mode == "projections":
        shapes = _shapes(model, attention)
        return [
            Site(full_name(name, local), "linear", full_name(name, local), "weight", name, shape,
                 (full_name(name, local), *holders), reason)
            for local, shape in zip(_PROJECTIONS, shapes, strict=True)
        ]  # fmt: skip
    declared = attention.kind == "declared"
    layers = _declared_names(attention) if declared else tuple(full_name(name, local) for local in _PROJECTIONS)
    widths = {"query_key": attention.head_width, "value_output": attention.value_head_width}
    members = {"query_key": layers[:2], "value_output": layers[2:]}
    return [
        Site(full_name(name, local), kind, name, "", name, (widths[local], attention.heads),
             (full_name(name, local), *members[local], *holders), reason, layers)
        for local, kind in _JOINT.items()
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
    name: str, module: nn.Linear, paths: tuple[str, ...], owners: Mapping[int, int], of: AttentionSite | None
) -> Site:
    reason = None
    if not name:
        reason = "it is the model itself, which cannot be replaced in place"
    elif type(module).forward is not nn.Linear.forward:
        reason = f"a `{type(module).__name__}` has a `forward` of its own"
    elif "weight" not in module._parameters:
        reason = "its weight is computed from other parameters"
    elif owners[id(module.weight)] > 1:
        reason = "its weight belongs to other modules too"
    shape = (module.out_features, module.in_features)
    attention = None if of is None else of.name
    extra = () if of is None else (of.name,)
    return Site(name, "linear", name, "weight", attention, shape, (*paths, *extra), reason)


def _recurrent_sites(
    name: str, module: RecurrentLayer, paths: tuple[str, ...], owners: Mapping[int, int], holder: nn.Module | None
) -> list[Site]:
    reason = None
    if not name:
        reason = "it is the model itself, which cannot be replaced in place"
    elif holder is not None:
        reason = f"it is a part of a `{type(holder).__name__}`, which holds native layers only"
    elif module.proj_size:
        reason = f"an LSTM with proj_size={module.proj_size} has its recurrent matrix in low rank already"
    elif type(module).forward not in [kind.forward for kind in LAYERS]:
        reason = f"a `{type(module).__name__}` has a `forward` of its own"
    sites = []
    for part in parts(module):
        for local in (part.names["weight_ih"], part.names["weight_hh"]):
            weight = module._parameters.get(local)
            why = reason
            if weight is None:
                why = why or "it is computed from other parameters"
            elif owners[id(weight)] > 1:
                why = why or "it belongs to other modules too"
            tensor = getattr(module, local)
            full = full_name(name, local)
            shape = (tensor.size(0), tensor.size(1))
            sites.append(Site(full, "recurrent", name, local, None, shape, (full, *paths), why))
    return sites


def _owners(model: nn.Module) -> dict[int, int]:
    """Identity of a parameter -> how many modules hold it."""
    counts: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    return counts


def _holds_native_layers(module: nn.Module) -> bool:
    """Layers of this package around native recurrent ones, which read these layers' own attributes."""
    from compressor.nn.recurrent.graph import GraphRecurrent
    from compressor.nn.recurrent.uneven import UnevenRecurrent

    return isinstance(module, (GraphRecurrent, UnevenRecurrent))


def _is_factor(model: nn.Module, name: str) -> bool:
    """Whether a module is a part of a layer of factors."""
    holders = _path_and_holders(name)[1:]
    return any(isinstance(model.get_submodule(holder), (LowRankLinear, LowRankRecurrent)) for holder in holders)


def analyse(
    model: nn.Module,
    sites: Sequence[Site],
    mode: Mode,
    batches: Sequence[tuple[Tensor, ...]],
    bar: Bar | None = None,
) -> tuple[list[Cut], dict[str, str]]:
    """Decompose the matrices of the sites, as they are seen by the batches where there are any.

    Args:
        model: Without `nn.MultiheadAttention` where a site is a part of attention, see `converted`.
        sites: Which may be factored.
        mode: How attention is.
        batches: Inputs of the model.
        bar: Told of each batch and each site.

    Returns:
        What every rank of each site costs, and name -> reason of those that the batches never reached.
    """
    moments = _collect(model, sites, batches, bar) if batches else {}
    cuts, unseen = [], {}
    for site in sites:
        own = [moments.get(key) for key in _keys(site)]
        if batches and any(found is None or not found.samples for found in own):
            unseen[site.name] = "the model did not call it on the calibration batches"
        else:
            cuts.append(_cut(model, site, mode, [found for found in own if found is not None]))
        if bar is not None:
            bar.advance(note=site.name)
    return cuts, unseen


def _keys(site: Site) -> list[Key]:
    """What has to be seen of the model for a site."""
    if site.kind == "query_key":
        return [(site.layers[0], "output"), (site.layers[1], "output")]
    if site.kind == "value_output":
        return [(site.layers[3], "weight")]
    return [(site.module, site.local)]


def _cut(model: nn.Module, site: Site, mode: Mode, moments: list[Moments]) -> Cut:
    if site.kind in _JOINT.values():
        return _cut_of_heads(head_weights(model, site), site, moments, joint=mode == "products")
    module: Any = model.get_submodule(site.module)
    weight = module.get_parameter(site.local)
    inputs = None
    if moments:
        inputs = Inputs.of(moments[0], centred=_bias_of(module, site.local) is not None)
    spectrum = Spectrum(weight, inputs)
    rows, columns = weight.shape
    most = largest_saving_rank(rows, columns)
    return Cut(site, rows * columns, rows + columns, spectrum.losses.tolist(), most, spectrum)


def head_weights(model: nn.Module, site: Site) -> HeadWeights:
    """Of the attention that a site is a part of."""
    layers: list[Any] = [model.get_submodule(name) for name in site.layers]
    return HeadWeights.of(site.shape[1], layers)


def _cut_of_heads(weights: HeadWeights, site: Site, moments: list[Moments], *, joint: bool) -> Cut:
    if site.kind == "query_key":
        pairs = query_key_pairs(weights, (moments[0], moments[1]) if moments else None, joint=joint)
        columns = weights.query.size(1) + weights.key.size(1)
        biases = (weights.query_bias is not None) + (weights.key_bias is not None)
    else:
        pairs = value_output_pairs(weights, moments[0] if moments else None, joint=joint)
        columns = weights.value.size(1) + len(weights.output)
        biases = int(weights.value_bias is not None)
    per_rank = weights.heads * (columns + biases)
    lost, width = pairs.losses.tolist(), pairs.width
    return Cut(site, width * per_rank, per_rank, lost, width - 1, pairs, moments[0] if moments else None)


def _bias_of(module: nn.Module, local: str) -> Tensor | None:
    return module._parameters.get(local.replace("weight", "bias"))


def _collect(
    model: nn.Module, sites: Iterable[Site], batches: Sequence[tuple[Tensor, ...]], bar: Bar | None
) -> dict[Key, Moments]:
    """Sums over all samples of what the sites' matrices are applied to, or give; one batch at a time."""
    wanted: dict[str, set[str]] = {}
    for site in sites:
        for name, what in _keys(site):
            wanted.setdefault(name, set()).add(what)
    moments: dict[Key, Moments] = {}

    def add(name: str, what: str, samples: Tensor) -> None:
        if (name, what) not in moments:
            moments[name, what] = Moments(samples.size(1), 0, samples.device)
        moments[name, what].add(samples.double(), samples.new_zeros(len(samples), 0, dtype=torch.float64))

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = Call(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
            if "output" in wanted[name]:
                add(name, "output", produced(module, call))
            if wanted[name] != {"output"}:
                for local, samples in consumed(module, call):
                    if local in wanted[name]:
                        add(name, local, samples)

        return model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)

    device = next(model.parameters()).device
    handles = [watch(name) for name in wanted]
    try:
        with evaluating(model), without_fast_path():
            for batch in batches:
                model(*(part.to(device) for part in batch))
                if bar is not None:
                    bar.advance(note="calibration")
    finally:
        for handle in handles:
            handle.remove()
    return moments


def converted(model: nn.Module, masks: Mapping[str, Tensor], sites: Iterable[Site]) -> Factored:
    """A copy of the model in which attention that the sites are a part of is of this package's kind."""
    names = dict.fromkeys(site.attention for site in sites if site.attention)
    multihead = [name for name in names if isinstance(model.get_submodule(name), nn.MultiheadAttention)]
    done = convert(model, masks, multihead)
    return Factored(done.model, done.masks, list(done.records))


def put_factors(factored: Factored, cuts: Sequence[tuple[Cut, int]], example: Callable[[], tuple[Tensor, ...]]) -> None:
    """Put factors of these ranks into a converted model, in place; masks of what they replace are dropped.

    Args:
        factored: The model.
        cuts: What is cut, and to which rank.
        example: Gives real inputs of the model, on which attention that the task names is compared.

    Raises:
        SurgeryError: Attention that the task names does not take narrower heads.
    """
    model = factored.model
    declared: list[list[tuple[Cut, int]]] = []
    for module_name in dict.fromkeys(cut.site.module for cut, _ in cuts):
        own = [(cut, rank) for cut, rank in cuts if cut.site.module == module_name]
        old = model.get_submodule(module_name)
        site = own[0][0].site
        changed = site.layers or (module_name,)
        for name in [name for name in factored.masks if name.startswith(tuple(f"{layer}." for layer in changed))]:
            del factored.masks[name]
            factored.dropped.append(name)
        if site.layers and not isinstance(old, CompactMultiheadAttention):
            declared.append(own)
            continue
        new = _replacement(model, old, own)
        replace_module(model, module_name, new)
        factored.records.append(replace_record(module_name, new))
    if declared:
        factored.records.append(_narrow_declared(model, declared, example()))


def _narrow_declared(
    model: nn.Module, cuts: Sequence[Sequence[tuple[Cut, int]]], example: tuple[Tensor, ...]
) -> dict[str, Any]:
    """Cut the heads of attention that the task names, in place; gives the record.

    Its code may take the scale from the width of its heads or have it as a number, so both are tried: the narrow model
    has to give what the same maps give in heads of the old width, filled up with zeros.
    """
    before = [head_weights(model, own[0][0].site) for own in cuts]
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    example = tuple(part.to(next(model.parameters()).device) for part in example)
    with evaluating(model):
        for own, weights in zip(cuts, before, strict=True):
            _set(model, own[0][0].site, _cut_weights(weights, own, padded=True))
        expected = forward(model, example, "padded")
        fitting: list[bool] = []
        problem: SurgeryError | None = None
        for from_width in (False, True):
            for own, weights in zip(cuts, before, strict=True):
                _set(model, own[0][0].site, _rescaled(weights, _cut_weights(weights, own), from_width=from_width))
            try:
                check_agreement(forward(model, example, "narrow"), expected, example, what="features of heads")
            except SurgeryError as error:
                problem = error
            else:
                fitting.append(from_width)
        if fitting == [False]:
            for own, weights in zip(cuts, before, strict=True):
                _set(model, own[0][0].site, _cut_weights(weights, own))
    queries = any(cut.site.kind == "query_key" for own in cuts for cut, _ in own)
    if queries and len(fitting) == 2:
        raise SurgeryError(
            "the outputs of the first training batch do not tell whether the attention that the task names takes its "
            "scale from the width of its heads",
            hint="let `batches` give inputs whose attention is not the same everywhere, or use `mode: projections`",
        )
    if not fitting:
        assert problem is not None
        raise SurgeryError(
            f"heads of fewer features do not fit the code of the attention that the task names: {problem.message}",
            hint="let the code take sizes from the tensors (`-1`, `query.shape[-1]`), or use `mode: projections`",
        )
    now = dict(model.named_parameters())
    return resize_record({name: now[name].shape for name in now if now[name].shape != shapes[name]})


def _rescaled(old: HeadWeights, new: HeadWeights, *, from_width: bool) -> HeadWeights:
    """Queries as code wants them which divides the scores by the square root of the width of its heads."""
    if not from_width:
        return new
    factor = (len(new.query) / len(old.query)) ** 0.5
    bias = None if new.query_bias is None else new.query_bias * factor
    return dataclasses.replace(new, query=new.query * factor, query_bias=bias)


def _set(model: nn.Module, site: Site, weights: HeadWeights) -> None:
    for name, (weight, bias) in zip(site.layers, weights.tensors, strict=True):
        layer: Any = model.get_submodule(name)
        for local, tensor in (("weight", weight), ("bias", bias)):
            if tensor is not None:
                old = layer.get_parameter(local)
                setattr(layer, local, nn.Parameter(tensor.to(old.dtype).contiguous(), requires_grad=old.requires_grad))
        layer.out_features, layer.in_features = layer.weight.shape


def _cut_weights(weights: HeadWeights, cuts: Iterable[tuple[Cut, int]], *, padded: bool = False) -> HeadWeights:
    """The weights of the narrower heads; with `padded` in heads of the old width whose further features are 0."""
    for cut, rank in cuts:
        assert isinstance(cut.spectrum, HeadPairs)
        first, second = cut.spectrum.maps(rank)
        if padded:
            empty = (0, cut.spectrum.width - rank)
            first, second = nn.functional.pad(first, empty), nn.functional.pad(second, empty)
        if cut.site.kind == "query_key":
            weights = cut_query_key(weights, (first, second))
        else:
            weights = cut_value_output(weights, (first, second), cut.moments)
    return weights


def count(model: nn.Module, site: Site) -> tuple[int, int]:
    """Parameters that a site stands for, as the model has it now, and how many of them are not zero."""
    parts = _tensors_of(model, site)
    return sum(part.numel() for part in parts), sum(int(part.count_nonzero()) for part in parts)


def _tensors_of(model: nn.Module, site: Site) -> list[Tensor]:
    if site.kind in _JOINT.values():
        query, key, value, output = (model.get_submodule(name) for name in site.layers)
        if site.kind == "query_key":
            return [*query.parameters(), *key.parameters()]
        return [*value.parameters(), *_weights(output)]
    module: Any = model.get_submodule(site.module)
    if site.kind == "linear":
        return _weights(module)
    if is_layer(module):
        return [module.get_parameter(site.local)]
    layer, _, backward = site.local.rpartition("_l")[2].partition("_")
    part = module.part(int(layer), int(bool(backward)))
    return _weights(part.input if "weight_ih" in site.local else part.hidden)


def _weights(module: nn.Module) -> list[Tensor]:
    return [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]


def _replacement(model: nn.Module, old: Any, cuts: Sequence[tuple[Cut, int]]) -> Any:
    if isinstance(old, nn.Linear):
        return LowRankLinear.from_linear(old, _factors(*cuts[0]))
    if is_layer(old):
        return LowRankRecurrent.from_module(old, {cut.site.local: _factors(cut, rank) for cut, rank in cuts})
    return narrowed(old, _cut_weights(head_weights(model, cuts[0][0].site), cuts))


def _factors(cut: Cut, rank: int) -> Factors:
    assert isinstance(cut.spectrum, Spectrum)
    return cut.spectrum.factors(rank)


def try_out(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Run a copy of the model once.

    Raises:
        MethodError: It reads something of a layer that factors do not have.
    """
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), without_fast_path():
            copy.deepcopy(model).eval()(*(part.to(device) for part in inputs))
    except Exception as error:
        raise MethodError(
            f"with factors in it the model raises {type(error).__name__}: {str(error).splitlines()[0]}",
            hint="it has to call the layer as PyTorch's and leave its weights alone; name it under `ignore`",
        ) from error


def _path_and_holders(path: str) -> list[str]:
    """`a.b.c`, `a.b`, `a`; nothing for the model itself."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
