"""Where a training keeps how far it is, epoch by epoch, so that it goes on after a kill with the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


class Snapshots(Protocol):
    """A place for the latest snapshot of one training."""

    def load(self) -> tuple[Mapping[str, Tensor], Any] | None:
        """Tensors, and facts that JSON can hold, of the latest snapshot; None if there is none.

        Random generators that belong to nobody (torch's own, Python's, NumPy's) are set to where they were then.
        """

    def save(self, tensors: Callable[[], Mapping[str, Tensor]], facts: Callable[[], Any]) -> None:
        """Keep a snapshot instead of the one before; the functions are called if it is kept."""


class NoSnapshots:
    """Keeps nothing: a killed training begins anew."""

    def load(self) -> None:
        """There is none."""

    def save(self, tensors: Callable[[], Mapping[str, Tensor]], facts: Callable[[], Any]) -> None:
        """Do nothing."""
