"""Statistics of what the consumers of units are given, over samples and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.nn.names import full_name
from compressor.surgery.refit.calibration import Batches, calls, consumed, evaluating, produced
from compressor.surgery.refit.consumers import CONSUMERS

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Statistics:
    """Of what each position of a consumer's axis is given, over samples and steps; float64."""

    samples: int
    sums: Tensor
    squares: Tensor
    magnitudes: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of h."""
        return self.sums / self.samples

    @property
    def mean_magnitude(self) -> Tensor:
        """Mean of |h|."""
        return self.magnitudes / self.samples

    @property
    def variance(self) -> Tensor:
        """Mean of (h - mean)^2."""
        return (self.squares / self.samples - self.mean.square()).clamp(min=0.0)

    def add(self, values: Tensor) -> None:
        """Take (N, n) in."""
        values = values.double()
        self.samples += len(values)
        self.sums += values.sum(0)
        self.squares += values.square().sum(0)
        self.magnitudes += values.abs().sum(0)


def measure(model: nn.Module, batches: Batches, *, outputs_of: Sequence[str] = ()) -> dict[str, Statistics]:
    """Consumer weight -> statistics of what its input positions are given, over all batches.

    With `outputs_of`, Linear layers and convolutions by name: of what these give instead, before whatever follows.
    """
    names = outputs_of or [name for name, module in model.named_modules() if isinstance(module, CONSUMERS)]
    statistics: dict[str, Statistics] = {}
    with evaluating(model):
        for batch in batches:
            for name, call in calls(model, names, batch):
                module = model.get_submodule(name)
                parts = [("weight", produced(module, call))] if outputs_of else consumed(module, call)
                for local, values in parts:
                    weight = full_name(name, local)
                    if weight not in statistics:
                        zeros = values.new_zeros(3, values.size(1), dtype=torch.float64)
                        statistics[weight] = Statistics(0, *zeros.unbind())
                    statistics[weight].add(values)
    return statistics
