"""What normalisations have in common that lose features and still divide by their original number."""

from __future__ import annotations

import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from compressor.nn.record import LayerRecord, RecordedLayer, Size


class NarrowedNormRecord(LayerRecord):
    """What every such layer is built from."""

    features: Size
    width: Size
    eps: float | None

    @field_validator("eps")
    @classmethod
    def _small(cls, eps: float | None) -> float | None:
        if eps is not None and not 0.0 <= eps < 1.0:
            raise ValueError("eps has to lie in 0..1")
        return eps


class NarrowedAxisRecord(NarrowedNormRecord):
    """Of one whose features are normalised together."""

    @model_validator(mode="after")
    def _are_left(self) -> NarrowedAxisRecord:
        if self.features > self.width:
            raise ValueError(f"{self.features} features cannot be left of {self.width}")
        return self


class NarrowedNorm(RecordedLayer):
    """A normalisation of which some features are left, and the others are known to be 0."""

    width: int
    """Features that it divides by: those that were there before anything was removed."""
    weight: nn.Parameter | None

    def resize(self, features: int) -> None:
        """Say how many features are left, after the weights were cut; matters if there are none."""
        self._features = features

    @property
    def features(self) -> int:
        """Size of the normalised axis of inputs and outputs."""
        return self._features if self.weight is None else self.weight.size(0)

    @property
    def normalized_shape(self) -> tuple[int, ...]:
        """The axes as `nn.LayerNorm` and `nn.RMSNorm` name them: (n',)."""
        return (self.features,)

    def exact(self, x: Tensor, axis: int = -1, what: str = "features") -> Tensor:
        """The input as it is computed with: half precision in float32, as PyTorch does it.

        Raises:
            ValueError: It has another number of features.
        """
        if x.size(axis) != self.features:
            raise ValueError(f"the input has {x.size(axis)} {what}, the normalisation {self.features}")
        return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
