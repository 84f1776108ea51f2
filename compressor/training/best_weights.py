"""Early stopping: the weights of the best epoch, and when to stop."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class BestWeights:
    """Remembers the weights (and buffers) of the best epoch, and says when waiting for a better one is over."""

    def __init__(
        self, *, higher_is_better: bool, patience: int | None, beside: Mapping[str, Tensor] = MappingProxyType({})
    ) -> None:
        """Nothing is seen yet.

        Args:
            higher_is_better: Of the metric.
            patience: The number of epochs without improvement after which to stop; None never stops.
            beside: What is trained beside the model and belongs to its weights.
        """
        self._sign = 1.0 if higher_is_better else -1.0
        self._patience = patience
        self._best = -math.inf
        self._since = 0
        self._state: dict[str, Tensor] = {}
        self._beside, self._kept = beside, dict[str, "Tensor"]()
        self.epoch = 0
        """The best epoch so far, 0 for the weights from before training; the earliest of equal ones."""

    def see(self, epoch: int, metric: float, model: nn.Module) -> bool:
        """Take note of an epoch; True if it is time to stop."""
        if self._sign * metric > self._best:
            self._best, self._since, self.epoch = self._sign * metric, 0, epoch
            self._state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            self._kept = {name: tensor.detach().clone() for name, tensor in self._beside.items()}
        else:
            self._since += 1
        return self._patience is not None and self._since >= self._patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back, in place."""
        model.load_state_dict(self._state)
        for name, tensor in self._kept.items():
            self._beside[name].data.copy_(tensor)
