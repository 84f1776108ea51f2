"""Group normalisation after some of its channels were removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from pydantic import model_validator
from torch import Tensor, nn

from compressor.nn.narrowed_norm import NarrowedNorm, NarrowedNormRecord
from compressor.nn.record import LayerRecord, Size, copy_parameter

if TYPE_CHECKING:
    from compressor.nn.factory import FactoryOptions

INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class WideGroupNormRecord(NarrowedNormRecord):
    """What a `WideGroupNorm` is built from."""

    eps: float
    groups: Size
    affine: bool

    @model_validator(mode="after")
    def _consistent(self) -> WideGroupNormRecord:
        if self.features % self.groups or self.features // self.groups > self.width:
            raise ValueError(f"{self.features} channels are not {self.groups} equal groups of at most {self.width}")
        return self


class WideGroupNorm(NarrowedNorm):
    r"""`nn.GroupNorm` of which each group has c' channels left of c; the c - c' others are known to be 0.

    Over the L positions of a group with sum :math:`\sum` over its c' L elements,

    .. math::
        m = \frac{\sum x}{c L}, \quad v = \frac{\sum (x - m)^2 + (c - c') L m^2}{c L}, \quad
        y = \frac{x - m}{\sqrt{v + \epsilon}} w + b.

    With one channel in each group, c = 1, whole groups go: that is an instance normalisation too.
    """

    record_type: ClassVar[type[LayerRecord]] = WideGroupNormRecord

    def __init__(
        self,
        features: int,
        groups: int,
        width: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Build the layer, with ones and zeros as weights.

        Args:
            features: Channels that are there, all groups together.
            groups: Number of groups.
            width: c, channels of a group before anything was removed.
            eps: Added to the variance.
            affine: There are a weight and a bias (features,).
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.width, self.eps, self.affine = width, eps, affine
        self._features, self._groups = features, groups
        self.bias: nn.Parameter | None
        self.register_parameter("weight", nn.Parameter(torch.ones(features, **factory)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(features, **factory)) if affine else None)

    @classmethod
    def from_module(cls, module: Any) -> WideGroupNorm:
        """The same function as an `nn.GroupNorm`, or as an `nn.InstanceNorm` without weights and running statistics."""
        instance = isinstance(module, INSTANCE_NORMS)
        features = module.num_features if instance else module.num_channels
        groups = features if instance else module.num_groups
        weight = module.weight
        options: dict[str, Any] = {} if weight is None else {"device": weight.device, "dtype": weight.dtype}
        wide = cls(features, groups, features // groups, eps=module.eps, affine=weight is not None, **options)
        if wide.weight is not None and wide.bias is not None:
            copy_parameter(wide.weight, module.weight)
            copy_parameter(wide.bias, module.bias)
        return wide.train(module.training)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return WideGroupNormRecord(
            features=self.features, groups=self.groups, width=self.width, eps=self.eps, affine=self.affine
        ).model_dump()

    @property
    def groups(self) -> int:
        """Number of groups; with one channel in each, as many as channels."""
        return self.features if self.width == 1 else self._groups

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, features, ...) over the channels of each group and all positions; same shape and type."""
        exact = self.exact(x, 1, "channels")
        grouped = exact.reshape(x.size(0), self.groups, self.features // self.groups, -1)  # (B, g, c', L)
        share = self.features / self.groups / self.width
        mean = grouped.mean((2, 3), keepdim=True) * share  # (B, g, 1, 1)
        centred = grouped - mean
        variance = centred.square().mean((2, 3), keepdim=True) * share + (1.0 - share) * mean.square()
        y = (centred / torch.sqrt(variance + self.eps)).reshape(x.shape)
        if self.weight is not None and self.bias is not None:
            shape = [1, -1] + [1] * (x.dim() - 2)
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """The structure in one line."""
        left = self.features // self.groups
        return f"{self.groups} groups, {left} of {self.width} channels each, eps={self.eps}, affine={self.affine}"
