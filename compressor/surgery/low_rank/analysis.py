"""What every rank of a matrix keeps and costs, as the inputs on calibration batches see it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.attention.head_factorisation import HeadWeights, query_key_pairs, value_output_pairs
from compressor.nn.attention.plain import plain_attention
from compressor.nn.factorisation import HeadPairs, Inputs, Spectrum, largest_saving_rank
from compressor.nn.hooks import hooked
from compressor.nn.least_squares import Moments
from compressor.surgery.low_rank.matrices import HEAD_KINDS
from compressor.surgery.refit.calibration import Call, consumed, evaluating, produced

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from compressor.progress import Bar
    from compressor.surgery.low_rank.matrices import MatrixSite, Mode

Key = tuple[str, str]
"""Module name and what of it: the local name of a weight, for its inputs, or `output`."""


@dataclass
class Cut:
    """A site with all that is known about every rank of it."""

    site: MatrixSite
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


def analyse(
    model: nn.Module,
    sites: Sequence[MatrixSite],
    mode: Mode,
    batches: Sequence[tuple[Tensor, ...]],
    bar: Bar | None = None,
) -> tuple[list[Cut], dict[str, str]]:
    """Decompose the matrices of the sites, as they are seen by the batches if there are any.

    Args:
        model: Without `nn.MultiheadAttention` if a site is a part of attention, see `converted`.
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
        of_site = [moments.get(key) for key in _keys(site)]
        if batches and any(moment is None or not moment.samples for moment in of_site):
            unseen[site.name] = "the model did not call it on the calibration batches"
        else:
            cuts.append(_cut(model, site, mode, [moment for moment in of_site if moment is not None]))
        if bar is not None:
            bar.advance(note=site.name)
    return cuts, unseen


def _keys(site: MatrixSite) -> list[Key]:
    """What has to be seen of the model for a site."""
    if site.kind == "query_key":
        return [(site.layers[0], "output"), (site.layers[1], "output")]
    if site.kind == "value_output":
        return [(site.layers[3], "weight")]
    return [(site.module, site.local)]


def _cut(model: nn.Module, site: MatrixSite, mode: Mode, moments: list[Moments]) -> Cut:
    if site.kind in HEAD_KINDS:
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


def head_weights(model: nn.Module, site: MatrixSite) -> HeadWeights:
    """Of the attention that a site is a part of."""
    layers: list[Any] = [model.get_submodule(name) for name in site.layers]
    return HeadWeights.of(site.shape[1], layers)


def _cut_of_heads(weights: HeadWeights, site: MatrixSite, moments: list[Moments], *, joint: bool) -> Cut:
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
    model: nn.Module, sites: Iterable[MatrixSite], batches: Sequence[tuple[Tensor, ...]], bar: Bar | None
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
    with hooked(watch(name) for name in wanted), evaluating(model), plain_attention():
        for batch in batches:
            model(*(part.to(device) for part in batch))
            if bar is not None:
                bar.advance(note="calibration")
    return moments
