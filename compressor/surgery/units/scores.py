"""What a hidden unit or feature is worth.

Each function gives a scorer: model and trace -> a score for each group at the index of its representative; larger =
keep. Those that measure on data look at what takes units in (the recurrent matrix, the next layer, the
head), so that whatever stands between (an activation function, a normalisation) counts as the consumer sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressor.nn.names import full_name
from compressor.surgery.refit.calibration import CONVOLUTIONS, Batches
from compressor.surgery.trace.edges import is_edge
from compressor.surgery.units.resize import tensor_of
from compressor.surgery.units.statistics import Statistics, measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.surgery.trace.state import Trace
    from compressor.surgery.units.choice import Scores
    from compressor.surgery.units.planning import Scorer

_ROWS_IN_CACHE = 64
Summary = Callable[[Statistics], Tensor]


def magnitude(power: Literal[1, 2]) -> Scorer:
    r"""The norm of all weights (of two or more axes) that a group owns: :math:`s_u = (\sum_w |w|^p)^{1/p}`.

    These are its rows of `weight_ih` and `weight_hh` in every gate, its column of `weight_hh`, and its column in every
    consumer (next layer, Linear), without biases.
    """

    def score(model: nn.Module, trace: Trace) -> Scores:
        totals = np.zeros(trace.atoms.count)
        for (name, axis), ids in trace.atoms.axes.items():
            if is_edge(name) or (tensor := tensor_of(model, name).detach()).dim() < 2:
                continue
            np.add.at(totals, trace.atoms.roots(ids), _power_sums(tensor, axis, power).numpy())
        return np.asarray(totals ** (1 / power))

    return score


def distance(power: Literal[1, 2] = 2) -> Scorer:
    r"""How far a group is from the others of its layer: the sum of the distances between their weight vectors.

    :math:`s_u = \sum_v \lVert w_u - w_v \rVert_p`, over all weights that a group owns and all others along the same
    axis. The unit nearest to the middle can be replaced by the others (He et al., FPGM, arXiv 1811.00250, section 3.3).
    """

    def score(model: nn.Module, trace: Trace) -> Scores:
        totals = np.zeros(trace.atoms.count)
        for (name, axis), ids in trace.atoms.axes.items():
            if is_edge(name) or (tensor := tensor_of(model, name).detach()).dim() < 2:
                continue
            vectors = tensor.movedim(axis, 0).flatten(1).double()
            np.add.at(totals, trace.atoms.roots(ids), torch.cdist(vectors, vectors, float(power)).sum(1).cpu().numpy())
        return totals

    return score


def activation(batches: Batches) -> Scorer:
    """Mean |h| of a group's units, averaged over all that takes them in."""
    return _measured(batches, lambda statistics: statistics.mean_magnitude)


def variance(batches: Batches) -> Scorer:
    """Variance of h over samples and steps, averaged likewise.

    A unit that hardly varies can be folded into its consumers' biases, which the compensation does.
    """
    return _measured(batches, lambda statistics: statistics.variance)


def random(generator: torch.Generator) -> Scorer:
    """Uniform in 0..1: the control."""

    def score(model: nn.Module, trace: Trace) -> Scores:
        return torch.rand(trace.atoms.count, generator=generator, dtype=torch.float64).numpy()

    return score


def _power_sums(tensor: Tensor, axis: int, power: int) -> Tensor:
    """Sum of |w|^p over all other axes, float64; piece by piece: down whole columns it takes ten times as long."""
    sums = [
        piece.abs().pow(power).movedim(axis, -1).flatten(0, -2).sum(0, dtype=torch.float64)
        for piece in tensor.split(_ROWS_IN_CACHE)
    ]
    return torch.cat(sums) if axis == 0 else torch.stack(sums).sum(0)


def _measured(batches: Batches, summary: Summary) -> Scorer:
    def score(model: nn.Module, trace: Trace) -> Scores:
        sums, counts = np.zeros(trace.atoms.count), np.zeros(trace.atoms.count)

        def add(measured: Mapping[str, Statistics], axis: int) -> None:
            for weight, statistics in measured.items():
                ids = trace.atoms.axes.get((weight, axis))
                if ids is not None:
                    groups = trace.atoms.roots(ids)
                    np.add.at(sums, groups, summary(statistics).cpu().numpy())
                    np.add.at(counts, groups, 1.0)

        add(measure(model, batches), 1)
        unseen = [
            name
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, *CONVOLUTIONS))
            and (ids := trace.atoms.axes.get((full_name(name, "weight"), 0))) is not None
            and not counts[trace.atoms.roots(ids)].all()
        ]
        if unseen:
            add(measure(model, batches, outputs_of=unseen), 0)
        return np.asarray(sums / np.maximum(counts, 1.0))

    return score
