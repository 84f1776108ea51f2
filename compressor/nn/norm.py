"""Layer normalisation after some of its features were removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from pydantic import model_validator
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.narrowed_norm import NarrowedAxisRecord, NarrowedNorm

if TYPE_CHECKING:
    from compressor.nn.factory import FactoryOptions
    from compressor.nn.record import LayerRecord


class WideLayerNormRecord(NarrowedAxisRecord):
    """What a `WideLayerNorm` is built from."""

    eps: float
    elementwise_affine: bool
    bias: bool

    @model_validator(mode="after")
    def _consistent(self) -> WideLayerNormRecord:
        if self.bias and not self.elementwise_affine:
            raise ValueError("a bias needs elementwise_affine")
        return self


class WideLayerNorm(NarrowedNorm):
    r"""`nn.LayerNorm` over n features of which only n' are there; the n - n' others are known to be 0.

    At the kept positions it gives what the original gives on the input filled up with zeros:

    .. math::
        m = \frac1n \sum_i x_i, \quad v = \frac1n \Big(\sum_i (x_i - m)^2 + (n - n')\, m^2\Big), \quad
        y_i = \frac{x_i - m}{\sqrt{v + \epsilon}} w_i + b_i

    The squares are taken after the mean is subtracted, so nothing cancels; half precision is computed in float32, as
    PyTorch does it.
    """

    record_type: ClassVar[type[LayerRecord]] = WideLayerNormRecord

    def __init__(
        self,
        features: int,
        width: int,
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Build the layer, with ones and zeros as weights.

        Args:
            features: n', the size of the last axis.
            width: n, what that size was before anything was removed.
            eps: Added to the variance.
            elementwise_affine: There is a weight (n',).
            bias: There is a bias (n',) as well; without `elementwise_affine` there is none.
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.width = width
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._features = features
        weight = nn.Parameter(torch.ones(features, **factory)) if elementwise_affine else None
        shift = nn.Parameter(torch.zeros(features, **factory)) if elementwise_affine and bias else None
        self.bias: nn.Parameter | None
        self.register_parameter("weight", weight)
        self.register_parameter("bias", shift)

    @classmethod
    def from_module(cls, module: nn.LayerNorm | WideLayerNorm, kept: Tensor) -> WideLayerNorm:
        """The layer at the kept positions; cutting again keeps the width that the very first one had.

        Args:
            module: A normalisation over the last axis alone; left as it is.
            kept: Mask over its features, True = kept.

        Raises:
            SurgeryError: It normalises over several axes, or the mask does not fit or keeps nothing.
        """
        size = module.normalized_shape[-1]
        if len(module.normalized_shape) != 1:
            raise SurgeryError(
                f"a LayerNorm over several axes {tuple(module.normalized_shape)} cannot lose features",
                hint="name the layers around it under `ignore`",
            )
        if kept.dtype != torch.bool or kept.shape != (size,) or not bool(kept.any()):
            raise SurgeryError(
                f"the mask {tuple(kept.shape)} of a LayerNorm over {size} features does not fit, or keeps nothing"
            )
        weight, bias = module.weight, module.bias
        smaller = cls(
            int(kept.sum()),
            module.width if isinstance(module, WideLayerNorm) else size,
            eps=module.eps,
            elementwise_affine=weight is not None,
            bias=bias is not None,
            device=None if weight is None else weight.device,
            dtype=None if weight is None else weight.dtype,
        )
        for new, old in ((smaller.weight, weight), (smaller.bias, bias)):
            if new is not None and old is not None:
                with torch.no_grad():
                    new.copy_(old[kept.to(old.device)]).requires_grad_(old.requires_grad)
        return smaller.train(module.training)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return WideLayerNormRecord(
            features=self.features,
            width=self.width,
            eps=self.eps,
            elementwise_affine=self.elementwise_affine,
            bias=self.bias is not None,
        ).model_dump()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (..., n') over its last axis; same shape and type."""
        exact = self.exact(x)
        mean = exact.sum(-1, keepdim=True) / self.width  # (..., 1)
        centred = exact - mean
        removed = self.width - self.features
        variance = (centred.square().sum(-1, keepdim=True) + removed * mean.square()) / self.width
        y = centred / torch.sqrt(variance + self.eps)
        if self.weight is not None:
            y = y * self.weight
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.features} of {self.width}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
