"""Root mean square normalisation after some of its features were removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.narrowed_norm import NarrowedAxisRecord, NarrowedNorm
from compressor.nn.record import LayerRecord, copy_parameter

if TYPE_CHECKING:
    from compressor.nn.factory import FactoryOptions


class WideRMSNormRecord(NarrowedAxisRecord):
    """What a `WideRMSNorm` is built from."""

    elementwise_affine: bool


class WideRMSNorm(NarrowedNorm):
    r"""`nn.RMSNorm` over n features of which only n' are there; the n - n' others are known to be 0.

    .. math:: y_i = x_i w_i / \sqrt{\tfrac1n \sum_i x_i^2 + \epsilon}
    """

    record_type: ClassVar[type[LayerRecord]] = WideRMSNormRecord

    def __init__(
        self,
        features: int,
        width: int,
        *,
        eps: float | None = None,
        elementwise_affine: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Build the layer, with ones as weights.

        Args:
            features: n', the size of the last axis.
            width: n, what that size was before anything was removed.
            eps: Added to the mean square; None: the smallest step of the type, as in PyTorch.
            elementwise_affine: There is a weight (n',).
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.width, self.eps, self.elementwise_affine, self._features = width, eps, elementwise_affine, features
        weight = nn.Parameter(torch.ones(features, **factory)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    @classmethod
    def from_module(cls, module: nn.RMSNorm) -> WideRMSNorm:
        """The same function, able to lose features.

        Raises:
            SurgeryError: It normalises over several axes.
        """
        if len(module.normalized_shape) != 1:
            raise SurgeryError(
                f"an RMSNorm over several axes {tuple(module.normalized_shape)} cannot lose features",
                hint="name the layers around it under `ignore`",
            )
        [width], weight = module.normalized_shape, module.weight
        options: dict[str, Any] = {} if weight is None else {"device": weight.device, "dtype": weight.dtype}
        wide = cls(width, width, eps=module.eps, elementwise_affine=weight is not None, **options)
        if wide.weight is not None:
            copy_parameter(wide.weight, weight)
        return wide.train(module.training)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return WideRMSNormRecord(
            features=self.features, width=self.width, eps=self.eps, elementwise_affine=self.elementwise_affine
        ).model_dump()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (..., n') over its last axis; same shape and type."""
        exact = self.exact(x)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        y = exact * torch.rsqrt(exact.square().sum(-1, keepdim=True) / self.width + eps)
        return (y if self.weight is None else y * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.features} of {self.width}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
