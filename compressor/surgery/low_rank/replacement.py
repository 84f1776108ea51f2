"""Puts factors and narrower heads into a copy of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.head_factorisation import narrowed
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.factorisation import Factors, Spectrum
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.layers import is_layer
from compressor.nn.structure import replace_module, replace_record
from compressor.surgery.changes import Size, change, size_of
from compressor.surgery.low_rank.analysis import head_weights
from compressor.surgery.low_rank.matrices import HEAD_KINDS
from compressor.surgery.low_rank.narrowing import cut_weights, narrow_declared
from compressor.surgery.units.convert import convert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from compressor.report import Change
    from compressor.surgery.low_rank.analysis import Cut
    from compressor.surgery.low_rank.matrices import MatrixSite


@dataclass
class Factored:
    """A model with factors in it."""

    model: nn.Module
    masks: dict[str, Tensor]
    records: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Parameters whose masks could not go along."""


def converted(model: nn.Module, masks: Mapping[str, Tensor], sites: Iterable[MatrixSite]) -> Factored:
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
        of_site = [(cut, rank) for cut, rank in cuts if cut.site.module == module_name]
        old = model.get_submodule(module_name)
        site = of_site[0][0].site
        changed = site.layers or (module_name,)
        for name in [name for name in factored.masks if name.startswith(tuple(f"{layer}." for layer in changed))]:
            del factored.masks[name]
            factored.dropped.append(name)
        if site.layers and not isinstance(old, CompactMultiheadAttention):
            declared.append(of_site)
            continue
        new = _replacement(model, old, of_site)
        replace_module(model, module_name, new)
        factored.records.append(replace_record(module_name, new))
    if declared:
        factored.records.append(narrow_declared(model, declared, example()))


def site_size(model: nn.Module, site: MatrixSite) -> Size:
    """The size of what a site stands for, as the model has it now."""
    return size_of(_tensors_of(model, site))


def _tensors_of(model: nn.Module, site: MatrixSite) -> list[Tensor]:
    if site.kind in HEAD_KINDS:
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
    return narrowed(old, cut_weights(head_weights(model, cuts[0][0].site), cuts))


def _factors(cut: Cut, rank: int) -> Factors:
    assert isinstance(cut.spectrum, Spectrum)
    return cut.spectrum.factors(rank)


def cut_change(cut: Cut, rank: int, before: Size, after: Size, *, whitened: bool) -> Change:
    """The change of a matrix, or of two, that were cut to a rank; `whitened`: its energies are of outputs on data."""
    kept = 1.0 - cut.losses[rank]
    what = "output energy on the calibration batches" if whitened else "energy"
    heads = cut.site.kind in HEAD_KINDS
    if heads:
        width, number = cut.site.shape
        note = f"{number} heads of {rank} features instead of {width}, {kept:.2%} of the {what} kept"
    else:
        rows, columns = cut.site.shape
        note = f"rank {rank} of {cut.full}: {rows} x {rank} and {rank} x {columns}, {kept:.2%} of the {what} kept"
    return change(cut.site.name, "heads narrowed" if heads else "factored", before, after, note=note)
