"""What a head is worth.

Each function gives a scorer: model, its sites, and a trace whose groups are heads -> the score of each group at the
index of its representative; larger = keep. All four projections are `nn.Linear` layers by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from compressor.errors import SurgeryError
from compressor.surgery.refit.calibration import Batches, calls, evaluating
from compressor.surgery.trace.state import Trace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.surgery.attention.site import AttentionSite
    from compressor.surgery.units.choice import Scores
    from compressor.surgery.units.planning import Scorer

HeadScorer = Callable[["nn.Module", Sequence["AttentionSite"], Trace], "Scores"]


def trace(model: nn.Module, sites: Sequence[AttentionSite]) -> Trace:
    """A trace in which nothing was run and each head is one group: its share of all four projections."""
    tracer = Trace(model)
    for site in sites:
        heads = tracer.atoms.new(site.heads)
        for part in site.projections:
            positions = np.repeat(heads, part.width)
            for name, axis, start in part.axes():
                size = model.get_parameter(name).size(axis)
                if (name, axis) not in tracer.atoms.axes:
                    tracer.atoms.bind(name, axis, np.zeros(size, np.int64), "in" if axis else "out")
                tracer.atoms.axes[name, axis][start : start + len(positions)] = positions
    return tracer


def groups(site: AttentionSite, tracer: Trace) -> np.ndarray:
    """The group of each head (h,)."""
    part = site.output
    ids = tracer.atoms.axes[part.weight, part.axis][part.start : part.stop : part.width]
    return tracer.atoms.roots(ids)


def weight() -> HeadScorer:
    r"""The norm of what a head does to its values, :math:`s_i = |W^O_i W^V_i|_F`, without biases.

    With :math:`W^V_i` (d_v, E_v) and :math:`W^O_i` (E_o, d_v). If every key got the same attention, that would be
    all that the head adds to the output.
    """

    def score(model: nn.Module, sites: Sequence[AttentionSite], tracer: Trace) -> Scores:
        def of(site: AttentionSite) -> Tensor:
            value, output = site.value.by_head(model).double(), site.output.by_head(model).double()
            # |O V|^2 = tr(O^T O V V^T): the products are d_v wide instead of E.
            return ((output.mT @ output) * (value @ value.mT)).sum((1, 2)).clamp(min=0.0).sqrt()

        return _by_site(sites, tracer, of)

    return score


def activation(batches: Batches) -> HeadScorer:
    r"""The norm of what a head adds to the output, :math:`s_i = \sqrt{\frac{1}{N} \sum_t |W^O_i c_{it}|^2}`.

    With :math:`c_{it}` (d_v,) what head i gives at position t, over all positions of all batches.
    """

    def score(model: nn.Module, sites: Sequence[AttentionSite], tracer: Trace) -> Scores:
        owners = {site.output.weight.rpartition(".")[0]: site for site in sites}
        moments: dict[str, Tensor] = {}
        samples = dict.fromkeys(owners, 0)
        with evaluating(model):
            for batch in batches:
                for name, call in calls(model, list(owners), batch):
                    site = owners[name]
                    inputs = next(iter(call.arguments.values())).reshape(-1, site.heads, site.output.width).double()
                    samples[name] += len(inputs)
                    squares = torch.einsum("thi,thj->hij", inputs, inputs)  # (h, d_v, d_v)
                    moments[name] = moments[name] + squares if name in moments else squares

        def of(site: AttentionSite) -> Tensor:
            name = site.output.weight.rpartition(".")[0]
            if not samples[name]:
                raise SurgeryError(
                    f"`{name}` is not called as a module, so what the heads of `{site.name}` give is not seen",
                    hint="use `score: weight`, or call the layer instead of using its weight",
                )
            output = site.output.by_head(model).double()
            return ((output.mT @ output) * moments[name]).sum((1, 2)).clamp(min=0.0).div(samples[name]).sqrt()

        return _by_site(sites, tracer, of)

    return score


def of_units(scorer: Scorer) -> HeadScorer:
    """A score of units (see `scores`) for heads: over all the weights that a head owns."""
    return lambda model, sites, tracer: scorer(model, tracer)


def _by_site(sites: Sequence[AttentionSite], tracer: Trace, of: Callable[[AttentionSite], Tensor]) -> Scores:
    totals = np.zeros(tracer.atoms.count)
    for site in sites:
        totals[groups(site, tracer)] = of(site).cpu().numpy()
    return totals
