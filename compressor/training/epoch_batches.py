"""The batches of each epoch, counted if a learning-rate schedule needs their number."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from compressor.progress import Bar


class EpochBatches:
    """The task's batches, epoch after epoch, their number if it is known, and the bar that counts them."""

    def __init__(
        self,
        draw: Callable[[], Iterable[Any]],
        generator: torch.Generator,
        *,
        epochs: int,
        most: int | None,
        scheduled: bool,
        accumulate: int = 1,
        hold_back: int = 0,
    ) -> None:
        """Look at the first epoch.

        Args:
            draw: Gives the batches of one epoch.
            generator: What they are drawn by.
            epochs: How many.
            most: At most so many batches an epoch.
            scheduled: The learning rate depends on the number of steps, so batches without a length are counted.
            accumulate: Batches of an optimizer step.
            hold_back: So many batches are drawn first and never given. Since a task that draws anew would give their
                samples again, all epochs then have the batches of the first one, in new orders, which are kept in
                memory. `most` counts without them.

        Raises:
            MethodError: All batches are held back.
        """
        self._new_epoch = draw
        self._generator = generator
        self._most = most
        self.epochs = epochs
        self.held: list[Any] = []
        """Batches that are held back."""
        if hold_back:
            self._hold_back(hold_back)
        self._first, per_epoch = self._look_ahead(count=scheduled)
        self.total = self.epochs if per_epoch is None else self.epochs * per_epoch
        """Of the bar: batches, or epochs if the number of batches is not known."""
        self._in_batches = per_epoch is not None
        self.steps = self.epochs * math.ceil(per_epoch / accumulate) if scheduled and per_epoch is not None else None
        """Optimizer steps of the learning-rate schedule; None if the rate is constant."""

    def epoch(self) -> Iterable[Any]:
        """The next epoch's batches."""
        batches, self._first = self._first, None
        return self._limited(self._new_epoch() if batches is None else batches)

    def first(self, count: int) -> list[Any] | None:
        """The first batches that are trained on; None if they are not known without drawing them."""
        return self._kept[:count] if self.held else None

    def snapshot(self) -> torch.Tensor:
        """The state of the generator."""
        return self._generator.get_state()

    def put_back(self, state: torch.Tensor, epochs: int, bar: Bar) -> None:
        """Go on after so many epochs, with the state of the generator at that time."""
        self._first = None
        self._generator.set_state(state)
        bar.advance(epochs * self.total // self.epochs, note=f"epoch {epochs}/{self.epochs} was done before")

    def reporter(self, bar: Bar, epoch: int) -> Callable[[int, float], None]:
        """What the trainer calls with the number of batches done and the latest loss."""

        def report(done: int, loss: float) -> None:
            bar.advance(done if self._in_batches else 0, note=f"epoch {epoch}/{self.epochs}, loss {loss:.4g}")

        return report

    def epoch_done(self, bar: Bar) -> None:
        """Advance a bar that counts epochs."""
        if not self._in_batches:
            bar.advance(1)

    def _hold_back(self, count: int) -> None:
        drawn = list(itertools.islice(self._new_epoch(), None if self._most is None else self._most + count))
        if len(drawn) <= count:
            raise MethodError(
                f"`hold_back: {count}` leaves no batch to train on: the task gives {len(drawn)} an epoch",
                hint="hold back fewer, or give smaller batches in `Task.batches`",
            )
        self.held, self._kept = drawn[:count], drawn[count:]
        self._new_epoch = self._in_new_order

    def _in_new_order(self) -> list[Any]:
        return [self._kept[place] for place in torch.randperm(len(self._kept), generator=self._generator).tolist()]

    def _limited(self, batches: Iterable[Any]) -> Iterable[Any]:
        return batches if self._most is None else itertools.islice(batches, self._most)

    def _look_ahead(self, *, count: bool) -> tuple[Iterable[Any] | None, int | None]:
        """The first epoch's batches and how many there are.

        Batches from a Python generator have no length. A schedule needs it, so they are counted once, from the
        same state of the random generator.
        """
        state = self._generator.get_state()
        first = self._new_epoch()
        try:
            size = len(first)  # type: ignore[arg-type]
        except TypeError:
            if not count:
                return first, None
            size = sum(1 for _ in self._limited(first))
            self._generator.set_state(state)
            return None, size
        return first, size if self._most is None else min(size, self._most)
