"""Heads of fewer features, in attention of this package and in third-party attention."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.attention.head_factorisation import HeadWeights, cut_query_key, cut_value_output
from compressor.nn.factorisation import HeadPairs
from compressor.surgery.equivalence import check_agreement, forward
from compressor.surgery.low_rank.analysis import head_weights
from compressor.surgery.rebuild import resize_record
from compressor.surgery.refit.calibration import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from compressor.surgery.low_rank.analysis import Cut
    from compressor.surgery.low_rank.matrices import MatrixSite


def narrow_declared(
    model: nn.Module, cuts: Sequence[Sequence[tuple[Cut, int]]], example: tuple[Tensor, ...]
) -> dict[str, Any]:
    """Cut the heads of attention that the task names, in place; gives the record.

    Its code may take the scale from the width of its heads or have it as a number, so both are tried: the narrow model
    has to give what the same maps give in heads of the old width, filled up with zeros.
    """
    before = [head_weights(model, of_site[0][0].site) for of_site in cuts]
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    example = tuple(part.to(next(model.parameters()).device) for part in example)
    with evaluating(model):
        for of_site, weights in zip(cuts, before, strict=True):
            _set(model, of_site[0][0].site, cut_weights(weights, of_site, padded=True))
        expected = forward(model, example, "padded")
        fitting: list[bool] = []
        problem: SurgeryError | None = None
        for from_width in (False, True):
            for of_site, weights in zip(cuts, before, strict=True):
                _set(
                    model, of_site[0][0].site, _rescaled(weights, cut_weights(weights, of_site), from_width=from_width)
                )
            try:
                check_agreement(forward(model, example, "narrow"), expected, example, what="features of heads")
            except SurgeryError as error:
                problem = error
            else:
                fitting.append(from_width)
        if fitting == [False]:
            for of_site, weights in zip(cuts, before, strict=True):
                _set(model, of_site[0][0].site, cut_weights(weights, of_site))
    queries = any(cut.site.kind == "query_key" for of_site in cuts for cut, _ in of_site)
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


def _set(model: nn.Module, site: MatrixSite, weights: HeadWeights) -> None:
    for name, (weight, bias) in zip(site.layers, weights.tensors, strict=True):
        layer: Any = model.get_submodule(name)
        for local, tensor in (("weight", weight), ("bias", bias)):
            if tensor is not None:
                old = layer.get_parameter(local)
                setattr(layer, local, nn.Parameter(tensor.to(old.dtype).contiguous(), requires_grad=old.requires_grad))
        layer.out_features, layer.in_features = layer.weight.shape


def cut_weights(weights: HeadWeights, cuts: Iterable[tuple[Cut, int]], *, padded: bool = False) -> HeadWeights:
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
