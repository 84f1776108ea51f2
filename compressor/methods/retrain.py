"""`retrain`: train the compressed model on the task, masks held exactly, the original as teacher if asked to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from compressor.errors import MethodError
from compressor.methods.base import NO_HELPERS, Context, State, StepResult
from compressor.methods.retraining.distilling import Distilled
from compressor.methods.retraining.noise import Noisy
from compressor.methods.retraining.optimizing import Optimized
from compressor.methods.retraining.rounding import Rounded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.training.averaging import Average

PenaltyOf = Callable[["nn.Module"], Callable[[int, float], None]]
"""The model that is trained -> what is called after each optimizer step with its number and learning rate."""


class Retrain(Rounded, Noisy, Distilled, Optimized):  # their options are listed from the last to the first
    """Train the model on the task's batches. Pruned weights stay exactly zero.

    loss = (1 - distill_weight) * task loss + distill_weight * (output loss + mean hidden loss), the second part
    only with `distill: true`; the teacher is the model before the first step of the recipe.
    """

    summary: ClassVar[str] = "train on the task, pruned weights held at zero, optionally taught by the original model"

    method: Literal["retrain"] = "retrain"
    """The recipe word."""

    bf16: bool = False
    """bfloat16 autocast, on an accelerator that has it; ignored, with a note in the report, elsewhere."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Retrain:
        if self.hold_back is not None and not self.distill:
            raise ValueError("`hold_back` needs `distill: true`: weights are chosen by their distance to the original")
        return self

    def check(self, model: nn.Module) -> None:
        """Refuse a model without trainable parameters and hidden modules that it does not have."""
        self._check_trained(model)
        self.check_hidden(model)

    def _check_trained(self, model: nn.Module) -> None:
        """What can be said of a model that earlier steps changed."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise MethodError(
                "the model has no parameter to train",
                hint="parameters with `requires_grad=False` are left alone: unfreeze some of them",
            )
        self.check_rounding(model)

    @property
    def needs_float64(self) -> bool:
        """Training is done in the model's own types."""
        return False

    @property
    def restructures(self) -> bool:
        """No."""
        return False

    def apply(self, state: State, context: Context) -> StepResult:
        """Train a copy of the model."""
        return self.train(state, context)

    def train(self, state: State, context: Context, penalty: PenaltyOf | None = None) -> StepResult:
        """Train a copy of the model; `penalty` gives what is called after each optimizer step, for that copy."""
        from compressor.nn.accelerators import autocasts_to_bf16
        from compressor.surgery.changes import trained_changes
        from compressor.training.epochs import enough_memory, trainable_copy
        from compressor.training.seeding import seeded

        self._check_trained(state.model)
        if penalty is not None:  # which the other processes do not have
            context = replace(context, team=NO_HELPERS)
        self.check_team(context.team.size)
        model = trainable_copy(state.model, state.masks, context.device)
        with (
            context.team.together(self, state, context),
            seeded(context.generator, context.device),
            enough_memory(),
        ):
            history, notes = self._train(model, state, context, penalty)
        model.eval()
        if context.team.size > 1:
            notes.append(f"{context.team.size} processes shared the {self.accumulate} batches of each step")
        if self.bf16 and not autocasts_to_bf16(context.device):
            notes.append(f"bf16 ignored: `{context.device.type}` is not an accelerator with bfloat16 autocast")
        changes, skipped = trained_changes(state.model, model, state.masks)
        if not changes and not self.keeps_best:  # what is kept is told in a note
            names = ", ".join(skip.name for skip in skipped)
            raise MethodError(f"retraining changed none of {names}", hint="raise `lr`, or prune fewer weights")
        trained = State(model, state.masks, state.structure)
        return StepResult(trained, changes, skipped, tuple(history), tuple(notes), may_change_nothing=self.keeps_best)

    def _train(
        self, model: nn.Module, state: State, context: Context, penalty: PenaltyOf | None
    ) -> tuple[list[dict[str, float]], list[str]]:
        """Train `model` in place; gives a row an epoch, and notes."""
        from compressor.measure import accuracy
        from compressor.methods.sharing import SharedSnapshots, share_random_state
        from compressor.surgery.trace.edges import narrowed_target
        from compressor.task.forwards import TorchForward
        from compressor.training.batch_loss import batch_loss
        from compressor.training.epochs import Validation, train_epochs
        from compressor.training.trainer import Trainer

        device, task = context.device, context.task
        with self.teacher(model, state, context) as teacher:
            batches = self.batches(context)
            rounding = self.rounding(model, batches, context)
            around = contextlib.nullcontext if rounding is None else rounding.held
            parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
            average = self.average(parameters, batches)
            parameters |= teacher.parameters() if teacher else {}

            def task_loss(outputs: Any, target: Any) -> Tensor:
                return task.loss(outputs, narrowed_target(model, outputs, target))

            def metric(trained: nn.Module) -> float:
                forward = TorchForward(trained, device)
                value = context.team.agreed(lambda: accuracy.score(task, forward, validation=True).value)
                share_random_state(context.team, device)
                return value

            trainer = Trainer(
                parameters,
                self.new_optimizer(parameters.values()),
                masks=state.masks,
                clip=self.clip,
                noise=self.noise(context),
                lr_at=self.lr_at(batches),
                around=around,
                after_step=_after_step(None if penalty is None else penalty(model), average),
                accumulate=self.accumulate,
                team=context.team,
            )
            history, notes = train_epochs(
                model,
                trainer,
                batches,
                batch_loss(model, task_loss, teacher, teacher_share=self.distill_weight, device=device, bf16=self.bf16),
                Validation(
                    metric,
                    task.higher_is_better,
                    self.keeps_best,
                    self.early_stopping,
                    self.distance(teacher, batches, context),
                ),
                masks=state.masks,
                progress=context.progress,
                around=around,
                snapshots=SharedSnapshots(context.snapshots, context.team, device),
                average=average,
            )
        notes += self.finish_rounding(rounding)
        return history, notes


def _after_step(
    penalty: Callable[[int, float], None] | None, average: Average | None
) -> Callable[[int, float], None] | None:
    """The penalty changes weights, so the average sees them after it."""
    if average is None:
        return penalty

    def both(step: int, lr: float) -> None:
        if penalty is not None:
            penalty(step, lr)
        average.see(step)

    return both
