"""How `retrain` goes through the batches: optimizer, schedule of the learning rate, and which weights it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import nn, optim

    from compressor.training.averaging import Average
    from compressor.training.epoch_batches import EpochBatches

_QUICK_BATCHES = 4
"""Batches of a rehearsal."""


class Optimized(Method):
    """A method that trains on the task's batches."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Passes over the task's training batches."""

    max_batches: Annotated[int, Field(ge=1)] | None = None
    """At most this many batches an epoch; all of them if left out."""

    accumulate: Annotated[int, Field(ge=1, le=65536)] = 1
    """Batches of an optimizer step: the mean of their losses counts. Processes of `torchrun` share them, so it must be
    a multiple of their number; the numbers depend on it, and not on how many processes there are."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """`adam`, `adamw` (decoupled weight decay) or `sgd`; its state starts fresh with this step."""

    lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1e-3
    """Learning rate, the highest one of the schedule."""

    weight_decay: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """L2 penalty (`adam`, `sgd`) or decoupled decay (`adamw`)."""

    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Momentum of `sgd`; the other optimizers have their own."""

    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate after the warm-up: constant, or down to zero at the last step along a half cosine or a line."""

    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of all optimizer steps during which the learning rate rises linearly from zero."""

    clip: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = 5.0
    """Largest L2 norm of the whole gradient; a longer one is scaled down. `null` turns clipping off."""

    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Stop when the task's validation metric has not improved for this many epochs; the best weights are restored,
    those from before training if no epoch is better."""

    keep_best: bool = False
    """End with the weights of the best validation metric, those from before training included, not with the last."""

    average_last: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The mean of the weights over this last part of the optimizer steps (0.5: their second half) is measured after
    each epoch beside the last weights; with `keep_best` or `early_stopping`, which choose between them."""

    hold_back: Annotated[int, Field(ge=1)] | None = None
    """Set aside this many training batches, never train on them, and let them choose the best weights of `keep_best`
    and `early_stopping` instead of the metric: those whose outputs on them are nearest to the original's, by
    `distill_loss`. Against learning by heart what few training data say. All epochs then go through the batches of the
    first one, which are kept in memory, in new orders."""

    @model_validator(mode="after")
    def _options_of_optimizing_belong_together(self) -> Optimized:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"`momentum` belongs to `optimizer: sgd`, not to `{self.optimizer}`")
        if not self.keeps_best:
            why = "has no effect without `keep_best: true` or `early_stopping`, which choose the weights"
            self.refuse_options("average_last", "hold_back", why=why)
        return self

    @property
    def keeps_best(self) -> bool:
        """Whether it may end with other weights than the last."""
        return self.keep_best or self.early_stopping is not None

    @property
    def _scheduled(self) -> bool:
        return self.schedule != "constant" or self.warmup > 0.0

    def check_team(self, processes: int) -> None:
        """Refuse processes that would have nothing to do."""
        if self.accumulate % processes:
            raise MethodError(
                f"`accumulate: {self.accumulate}` batches of a step cannot be shared equally by {processes} processes",
                hint=f"set `accumulate: {processes}`, or a multiple; one process gives the same numbers with it",
            )

    def batches(self, context: Context) -> EpochBatches:
        """Those of all epochs; a handful in a rehearsal."""
        from compressor.training.epoch_batches import EpochBatches

        most = min(self.max_batches or _QUICK_BATCHES, _QUICK_BATCHES) if context.quick else self.max_batches
        return EpochBatches(
            lambda: context.task.batches(context.generator),
            context.generator,
            epochs=1 if context.quick else self.epochs,
            most=most,
            scheduled=self._scheduled or self.average_last is not None,
            accumulate=self.accumulate,
            hold_back=0 if self.hold_back is None else 1 if context.quick else self.hold_back,
        )

    def average(self, parameters: Mapping[str, nn.Parameter], batches: EpochBatches) -> Average | None:
        """The mean of these parameters over the last part of the steps; None without `average_last`."""
        from compressor.training.averaging import Average

        if self.average_last is None or batches.steps is None:
            return None
        return Average(parameters, after=batches.steps - max(1, round(self.average_last * batches.steps)))

    def new_optimizer(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """One that has taken no step."""
        from compressor.training.trainer import make_optimizer

        return make_optimizer(
            self.optimizer, list(parameters), lr=self.lr, weight_decay=self.weight_decay, momentum=self.momentum
        )

    def lr_at(self, batches: EpochBatches) -> Callable[[int], float] | None:
        """Optimizer step t = 0, 1, ... -> learning rate; None if it is constant or the number of steps unknown."""
        from compressor.training.trainer import lr_factor

        steps = batches.steps if self._scheduled else None
        return None if steps is None else lambda t: self.lr * lr_factor(t, steps, self.schedule, self.warmup)
