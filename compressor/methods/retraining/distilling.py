"""The original as the teacher of `retrain`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from compressor.training.distillation import Teacher
    from compressor.training.epoch_batches import EpochBatches


class Distilled(Method):
    """A method that may train a model on what the original answers."""

    distill: bool = False
    """Learn from the original model's outputs too."""

    distill_loss: Literal["kl", "mse", "cosine"] = "kl"
    """Distance of the outputs (the first one of several): `kl` of softmax over the last axis (logits),
    `mse`, or `cosine` distance over the last axis (embeddings)."""

    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 2.0
    """Softens both softmaxes of `distill_loss: kl`, whose value is multiplied by its square."""

    distill_weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the distillation loss; at 1 the task's loss is not computed and labels are not used."""

    distill_hidden: tuple[str, ...] = ()
    """Names of modules of the original whose outputs are matched by mean squared error; layers that `depth_search` or
    `tie_layers` moved are found, one that was left out where the next one reads. If units were removed, a linear map
    from the smaller to the larger output is learned beside the model and thrown away at the end."""

    @model_validator(mode="after")
    def _options_of_distillation_belong_together(self) -> Distilled:
        if not self.distill:
            only_distilled = ("distill_loss", "temperature", "distill_weight", "distill_hidden")
            self.refuse_options(*only_distilled, why="has no effect without `distill: true`")
        elif self.distill_loss != "kl":
            self.refuse_options("temperature", why="has no effect without `distill_loss: kl`")
        return self

    @property
    def needs_loss(self) -> bool:
        """Unless the original alone teaches."""
        return not (self.distill and self.distill_weight == 1.0)

    def check_hidden(self, model: nn.Module) -> None:
        """Refuse hidden modules that the model does not have."""
        if self.distill_hidden:
            from compressor.training.distillation import refuse_unknown

            refuse_unknown(self.distill_hidden, model)

    def teacher(self, model: nn.Module, state: State, context: Context) -> AbstractContextManager[Teacher | None]:
        """The original model, hooked if hidden outputs are matched; None without distillation."""
        from compressor.training.batch_loss import to_device
        from compressor.training.distillation import Teacher, refuse_unknown

        if not self.distill:
            return nullcontext()
        refuse_unknown(self.distill_hidden, context.original)
        example = to_device(context.task.example(2, context.task.length), context.device) if self.distill_hidden else ()
        return Teacher(
            context.original,
            model.eval(),
            kind=self.distill_loss,
            temperature=self.temperature,
            hidden=self.distill_hidden,
            example=example,
            remembered=context.remembered,
            moved=self._moved(model, state),
        )

    def _moved(self, model: nn.Module, state: State) -> dict[str, str]:
        """Where the hidden modules of the original are now.

        Raises:
            MethodError: One is gone.
        """
        from compressor.surgery.depth.renaming import name_now
        from compressor.training.distillation import refuse_unknown

        moved = {}
        for name in self.distill_hidden:
            now = name_now(name, state.structure)
            if now is None:
                raise MethodError(
                    f"`distill_hidden`: an earlier step left `{name}` out",
                    hint="name layers as a whole that are left, or leave this one out",
                )
            moved[name] = now
        refuse_unknown(list(moved.values()), model)
        return moved

    @staticmethod
    def distance(
        teacher: Teacher | None, batches: EpochBatches, context: Context
    ) -> Callable[[nn.Module], float] | None:
        """Mean distance of a model's outputs to the original's on the batches that are held back."""
        from compressor.training.batch_loss import mean_distance

        if teacher is None or not batches.held:
            return None
        device, team = context.device, context.team
        return lambda model: team.agreed(lambda: mean_distance(model, teacher, batches.held, device))
