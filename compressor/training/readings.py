"""What is read of a training while it runs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from compressor.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_SECONDS_BETWEEN_READS = 0.1


class Readings:
    """Losses and gradient norms of an epoch, read from the device a few times a second.

    Reading each of them at once would make a GPU wait for Python at every step.
    """

    def __init__(self, epoch: int, first_step: int, report: Callable[[int, float], None]) -> None:
        """`first_step` is the number of steps before; `report` takes the batches done since and the latest loss."""
        self._epoch = epoch
        self._next_step = first_step
        self._report = report
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._batches: list[int] = []
        self._sum = 0.0
        self._count = 0
        self._last = time.perf_counter()

    def add(self, loss: Tensor, norm: Tensor, batches: int) -> None:
        """The mean loss of the batches of a step."""
        self._batches.append(batches)
        self._losses.append(loss)
        self._norms.append(norm)
        if time.perf_counter() - self._last > _SECONDS_BETWEEN_READS:
            self._read()

    def close(self) -> float:
        """The mean loss."""
        self._read()
        if not self._count:
            raise MethodError("the task gave no training batches", hint="`Task.batches` must give at least one")
        return self._sum / self._count

    def _read(self) -> None:
        if not self._losses:
            return
        losses: list[float] = torch.stack(self._losses).tolist()
        norms: list[float] = torch.stack(self._norms).tolist()
        for loss, norm in zip(losses, norms, strict=True):
            _check_finite(loss, norm, self._epoch, self._next_step)
            self._next_step += 1
        self._sum += math.fsum(loss * batches for loss, batches in zip(losses, self._batches, strict=True))
        self._count += sum(self._batches)
        self._report(sum(self._batches), losses[-1])
        self._losses, self._norms, self._batches = [], [], []
        self._last = time.perf_counter()


def _check_finite(loss: float, norm: float, epoch: int, step: int) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what, value = ("loss", loss) if not math.isfinite(loss) else ("gradient", norm)
    raise broken(f"the {what} is {value}", epoch, step + 1)


def broken(what: str, epoch: int, step: int) -> MethodError:
    """The error of a training whose numbers are not finite any more."""
    return MethodError(
        f"retraining broke down: {what} at step {step} (epoch {epoch})",
        hint="lower `lr`, set a smaller `clip`, or check the training data for NaN",
    )
