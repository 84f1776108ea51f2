r"""Penalties on groups of weights, so that the groups which are removed later carry little.

A group is all weights of a unit: its rows in every gate, its column of the recurrent matrix, its columns in every
consumer. After each optimizer step with learning rate :math:`\eta` the weights of group g are shrunk,

.. math:: w \leftarrow w \cdot \max(0,\ 1 - \eta \lambda_g)

which for SGD is a step along the gradient of the penalty :math:`\tfrac12 \sum_g \lambda_g \lVert w_g \rVert^2`, and for
Adam the decoupled form (arXiv 1711.05101), whose strength does not depend on the gradients' size. With
:math:`n_g = \lVert w_g \rVert` and the strength :math:`\lambda`:

- `group_norm`: :math:`\lambda_g = \lambda\, 2^{\alpha (n_{max} - n_g) / (n_{max} - n_{min})}` within each layer (Fang
  et al., DepGraph, arXiv 2301.12900, section 3.3);
- `growing`: the groups that go, those of smallest norm before the first step, get :math:`\lambda_g = \lambda t` at step
  t = 1, 2, ...; the others nothing (Wang et al., GReg-1, arXiv 2012.09243, section 3.2);
- `lasso`: :math:`\lambda_g = \lambda / n_g`, the proximal step of :math:`\lambda \sum_g \lVert w_g \rVert` (for LSTM
  units: Wen et al., intrinsic sparse structures, arXiv 1709.05027, section 3.2);
- `norm_scale`: :math:`|w|` shrinks by :math:`\eta \lambda` for the scales of batch normalisations alone (Liu et al.,
  network slimming, arXiv 1708.06519, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from compressor.nn.accelerators import widest_float

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

Penalty = Literal["group_norm", "growing", "lasso", "norm_scale"]

_TINY = 1e-12


@dataclass(frozen=True)
class GroupAxis:
    """Which group each position along one axis of a parameter belongs to."""

    parameter: str
    axis: int
    groups: Tensor
    """(size,), int64: the number of a group; -1 if it is in none."""


@dataclass(frozen=True)
class Groups:
    """The groups of weights of some layers."""

    layers: Tensor
    """(G,), int64: the layer of each group."""
    going: Tensor
    """(G,), boolean: the groups that are to be removed."""
    axes: Sequence[GroupAxis]
    scales: Sequence[GroupAxis] = ()
    """The same of the scales of batch normalisations, one number for each feature."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.layers)

    def squared_norms(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """(G,): the sum of the squares of each group's weights; a weight counts once for each of its axes.

        In float64; in float32 on a device without it, whose rounding the penalty does not notice.
        """
        device = next(iter(parameters.values())).device
        total = torch.zeros(self.count + 1, dtype=widest_float(device), device=device)
        for item in self.axes:
            weight = parameters[item.parameter].detach()
            others = [axis for axis in range(weight.dim()) if axis != item.axis]
            sums = weight.square().sum(others, dtype=total.dtype) if others else weight.to(total.dtype).square()
            total.index_add_(0, item.groups.to(device) % (self.count + 1), sums)
        return total[:-1]


class GroupPenalty:
    """Shrinks the groups of a model's weights after each optimizer step."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        groups: Groups,
        penalty: Penalty,
        *,
        strength: float,
        alpha: float = 4.0,
    ) -> None:
        r"""Prepare.

        Args:
            parameters: The model's, by name, on one device.
            groups: Theirs; `norm_scale` needs `scales`.
            penalty: See the module.
            strength: :math:`\lambda`.
            alpha: Of `group_norm`: the lowest group is penalised :math:`2^\alpha` times as much as the highest.
        """
        device = next(iter(parameters.values())).device
        self._parameters = parameters
        self._groups = groups
        self._penalty = penalty
        self._strength = strength
        self._alpha = alpha
        self._layers = groups.layers.to(device)
        self._going = groups.going.to(device, widest_float(device))
        used = groups.scales if penalty == "norm_scale" else groups.axes
        self._places = [(parameters[item.parameter], item.axis, item.groups.to(device)) for item in used]

    @torch.no_grad()
    def shrink_(self, step: int, lr: float) -> None:
        """Shrink the weights in place after optimizer step `step` = 1, 2, ... with learning rate `lr`."""
        if self._penalty == "norm_scale":
            for scale, _, groups in self._places:
                smaller = scale.sign() * (scale.abs() - lr * self._strength).clamp_min(0.0)
                scale.copy_(torch.where(groups >= 0, smaller, scale))
            return
        factors = (1.0 - lr * self._strengths(step)).clamp_min(0.0)
        factors = torch.cat([factors, factors.new_ones(1)])  # the last one, -1, is no group
        for weight, axis, groups in self._places:
            shape = [1] * weight.dim()
            shape[axis] = -1
            weight.mul_(factors[groups].to(weight.dtype).view(shape))

    def _strengths(self, step: int) -> Tensor:
        if self._penalty == "growing":
            return self._going * (self._strength * step)
        norms = self._groups.squared_norms(self._parameters).sqrt()
        if self._penalty == "lasso":
            return self._strength / norms.clamp_min(_TINY)
        highest, lowest = (self._by_layer(norms, kind) for kind in ("amax", "amin"))
        place = (highest - norms) / (highest - lowest).clamp_min(_TINY)
        return self._strength * 2.0 ** (self._alpha * place)

    def _by_layer(self, norms: Tensor, kind: Literal["amax", "amin"]) -> Tensor:
        count = int(self._layers.max()) + 1
        result = norms.new_zeros(count).scatter_reduce(0, self._layers, norms, kind, include_self=False)
        return result[self._layers]
