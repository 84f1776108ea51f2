"""Early stopping: the best weights of all epochs, and when to stop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class BestWeights:
    """Remembers the weights (and buffers) of the best epoch, and says when waiting for a better one is over."""

    def __init__(self, *, higher_is_better: bool, patience: int | None) -> None:
        """`patience` is the number of epochs without improvement after which to stop; None never stops."""
        self._sign = 1.0 if higher_is_better else -1.0
        self._patience = patience
        self._best = -math.inf
        self._latest = 0  # epoch
        self._state: dict[str, Tensor] = {}
        self.epoch = 0
        """The best epoch so far, 0 for the weights from before training; the earliest of equal ones."""
        self.averaged = False
        """Whether the best weights are the mean of many steps."""

    def see(self, epoch: int, metric: float, model: nn.Module, *, averaged: bool = False) -> bool:
        """Take note of a model of an epoch, which may have several; True if it is time to stop."""
        self._latest = epoch
        if self._sign * metric > self._best:
            self._best, self.epoch, self.averaged = self._sign * metric, epoch, averaged
            self._state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return self.is_over

    @property
    def is_over(self) -> bool:
        """Whether it is time to stop."""
        return self._patience is not None and self._latest - self.epoch >= self._patience

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is remembered."""
        return dict(self._state), {
            "best": self._sign * self._best if self._state else None,
            "latest": self._latest,
            "epoch": self.epoch,
            "averaged": self.averaged,
        }

    def put_back(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Remember what `snapshot` gave."""
        if facts["best"] is not None:
            self._best = self._sign * facts["best"]
        self._latest, self.epoch, self.averaged = facts["latest"], facts["epoch"], facts["averaged"]
        self._state = {name: tensor.clone() for name, tensor in tensors.items()}

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back, in place."""
        model.load_state_dict(self._state)
