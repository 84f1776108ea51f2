"""`retrain`: train the compressed model on the task, masks held exactly, the original as teacher if asked to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import NO_HELPERS, Context, Method, State, StepResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.training.averaging import Average
    from compressor.training.distillation import Teacher
    from compressor.training.epoch_batches import EpochBatches
    from compressor.training.rounding import Rounding

_QUICK_BATCHES = 4
"""Batches of a rehearsal."""
PenaltyOf = Callable[["nn.Module"], Callable[[int, float], None]]
"""The model that is trained -> what is called after each optimizer step with its number and learning rate."""


class Retrain(Method):
    """Train the model on the task's batches. Pruned weights stay exactly zero.

    loss = (1 - distill_weight) * task loss + distill_weight * (output loss + mean hidden loss), the second part
    only with `distill: true`; the teacher is the model before the first step of the recipe.
    """

    summary: ClassVar[str] = "train on the task, pruned weights held at zero, optionally taught by the original model"

    method: Literal["retrain"] = "retrain"
    """The recipe word."""

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

    noise_eta: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Gradient noise of variance noise_eta / (1 + t)^noise_gamma at optimizer step t, added after clipping
    (arXiv 1511.06807, which used 0.01, 0.3 and 1.0); 0 is off."""

    noise_gamma: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.55
    """How fast the gradient noise fades."""

    quantize: Literal["int8", "int4", "mixed"] | None = None
    """Make rounding part of training: matrices of recurrent layers, Linear and Embedding are rounded in the forward
    pass, their gradients pass straight through (arXiv 1308.3432), and the step ends with rounded weights. For an export
    with the same `precision`, if rounding alone costs too much. Embeddings stay in 8 bits. `mixed` gives each of these
    matrices 2, 3, 4, 5, 6, 8 or 16 (float16) bits within the average `bits`, as the export does, by what each costs the
    outputs alone; an export with `precision: mixed` finds the same bits and integers."""

    bits: Annotated[float, Field(ge=2.0, le=16.0, allow_inf_nan=False)] | None = None
    """For `quantize: mixed`: bits of a weight on average over all matrices and tables but `keep_float`, scales
    included."""

    learn_steps: bool = False
    """With `quantize`: learn the steps of the integers, and with them the clipping, together with the weights (LSQ,
    arXiv 1902.08153)."""

    start: Literal["second_order", "nearest"] = "second_order"
    """With `learn_steps`: train from the second-order rounding on, or from rounding to the nearest with the clipping
    that has the least error of the weights."""

    keep_float: tuple[str, ...] = ()
    """Globs of parameters (`lstm.weight_ih_l0`) that `quantize` leaves exact, as the export's `keep_float` does by the
    names of the file."""

    bf16: bool = False
    """bfloat16 autocast, on an accelerator that has it; ignored, with a note in the report, elsewhere."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Retrain:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"`momentum` belongs to `optimizer: sgd`, not to `{self.optimizer}`")
        if not self.distill:
            only_distilled = ("distill_loss", "temperature", "distill_weight", "distill_hidden")
            self.refuse_options(*only_distilled, why="has no effect without `distill: true`")
        elif self.distill_loss != "kl":
            self.refuse_options("temperature", why="has no effect without `distill_loss: kl`")
        self._options_of_rounding_belong_together()
        if not self._keeps_best:
            why = "has no effect without `keep_best: true` or `early_stopping`, which choose the weights"
            self.refuse_options("average_last", "hold_back", why=why)
        if self.hold_back is not None and not self.distill:
            raise ValueError("`hold_back` needs `distill: true`: weights are chosen by their distance to the original")
        if not self.noise_eta:
            self.refuse_options("noise_gamma", why="has no effect without a `noise_eta` above 0")
        return self

    def _options_of_rounding_belong_together(self) -> None:
        if self.quantize is None:
            only_rounded = ("keep_float", "learn_steps", "bits", "start")
            self.refuse_options(*only_rounded, why="has no effect without `quantize: int8`")
        if not self.learn_steps:
            self.refuse_options("start", why="has no effect without `learn_steps: true`")
        if (self.quantize == "mixed") != (self.bits is not None):
            raise ValueError("`quantize: mixed` and `bits`, the average of a weight, go together")
        if self.quantize == "mixed" and not self.learn_steps:
            raise ValueError("`quantize: mixed` needs `learn_steps: true`")

    @property
    def rounding_block(self) -> int | None:
        """One number for all."""
        if self.quantize not in ("int4", "mixed"):
            return None
        from compressor.nn.integers import BLOCK

        return BLOCK

    def check(self, model: nn.Module) -> None:
        """Refuse a model without trainable parameters and hidden modules that it does not have."""
        self._check_trained(model)
        if self.distill_hidden:
            from compressor.training.distillation import refuse_unknown

            refuse_unknown(self.distill_hidden, model)

    def _check_trained(self, model: nn.Module) -> None:
        """What can be said of a model that earlier steps changed."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise MethodError(
                "the model has no parameter to train",
                hint="parameters with `requires_grad=False` are left alone: unfreeze some of them",
            )
        if self.quantize is not None:
            from compressor.training.rounding import Rounding

            Rounding(model, self.quantize, self.keep_float)

    def check_team(self, processes: int) -> None:
        """Refuse processes that would have nothing to do."""
        if self.accumulate % processes:
            raise MethodError(
                f"`accumulate: {self.accumulate}` batches of a step cannot be shared equally by {processes} processes",
                hint=f"set `accumulate: {processes}`, or a multiple; one process gives the same numbers with it",
            )

    @property
    def needs_float64(self) -> bool:
        """Training is done in the model's own types."""
        return False

    @property
    def needs_loss(self) -> bool:
        """Unless the original alone teaches."""
        return not (self.distill and self.distill_weight == 1.0)

    @property
    def _keeps_best(self) -> bool:
        return self.keep_best or self.early_stopping is not None

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
        if not changes and not self._keeps_best:  # what is kept is told in a note
            names = ", ".join(skip.name for skip in skipped)
            raise MethodError(f"retraining changed none of {names}", hint="raise `lr`, or prune fewer weights")
        trained = State(model, state.masks, state.structure)
        return StepResult(trained, changes, skipped, tuple(history), tuple(notes), may_change_nothing=self._keeps_best)

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
        from compressor.training.seeding import device_generator
        from compressor.training.trainer import Noise, Trainer, lr_factor, make_optimizer

        device, task = context.device, context.task
        with self._teacher(model, state, context) as teacher:
            batches = self._batches(context)
            rounding = self._rounding(model, batches, context)
            around = contextlib.nullcontext if rounding is None else rounding.held
            parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
            average = self._average(parameters, batches)
            parameters |= teacher.parameters() if teacher else {}
            optimizer = make_optimizer(
                self.optimizer,
                list(parameters.values()),
                lr=self.lr,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
            )
            steps = batches.steps if self._scheduled else None

            def task_loss(outputs: Any, target: Any) -> Tensor:
                return task.loss(outputs, narrowed_target(model, outputs, target))

            def metric(trained: nn.Module) -> float:
                forward = TorchForward(trained, device)
                value = context.team.agreed(lambda: accuracy.score(task, forward, validation=True).value)
                share_random_state(context.team, device)
                return value

            noise = None
            if self.noise_eta:
                noise = Noise(self.noise_eta, self.noise_gamma, device_generator(context.generator, device))
            trainer = Trainer(
                parameters,
                optimizer,
                masks=state.masks,
                clip=self.clip,
                noise=noise,
                lr_at=None if steps is None else lambda t: self.lr * lr_factor(t, steps, self.schedule, self.warmup),
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
                    self._keeps_best,
                    self.early_stopping,
                    self._distance(teacher, batches, context),
                ),
                masks=state.masks,
                progress=context.progress,
                around=around,
                snapshots=SharedSnapshots(context.snapshots, context.team, device),
                average=average,
            )
        if rounding is not None:
            rounding.finish()
            notes.append(f"{len(rounding.parameters)} matrices trained and left rounded to {self.quantize}")
            if self.quantize == "mixed":
                notes.append("bits: " + ", ".join(f"{name} {bits}" for name, (_, bits) in rounding.parameters.items()))
        return history, notes

    def _rounding(self, model: nn.Module, batches: EpochBatches, context: Context) -> Rounding | None:
        """What rounds the matrices in training; None without `quantize`."""
        from compressor.methods.rounding_start import BATCHES, learned_rounding
        from compressor.training.rounding import Rounding

        if self.quantize is None or not self.learn_steps:
            return None if self.quantize is None else Rounding(model, self.quantize, self.keep_float)
        from_second_order = self.start == "second_order"
        heard: list[Any] = []
        if from_second_order or self.bits is not None:
            context.progress.say("rounding the weights that the training starts from")
            heard = batches.first(BATCHES) or context.first_batches(BATCHES, hint="set `start: nearest`")
        return learned_rounding(
            model,
            self.quantize,
            self.keep_float,
            bits=self.bits,
            batches=[tuple(inputs) for inputs, _ in heard],
            from_second_order=from_second_order,
        )

    def _average(self, parameters: Mapping[str, nn.Parameter], batches: EpochBatches) -> Average | None:
        from compressor.training.averaging import Average

        if self.average_last is None or batches.steps is None:
            return None
        return Average(parameters, after=batches.steps - max(1, round(self.average_last * batches.steps)))

    def _distance(
        self, teacher: Teacher | None, batches: EpochBatches, context: Context
    ) -> Callable[[nn.Module], float] | None:
        """Mean distance of a model's outputs to the original's on the batches that are held back."""
        from compressor.training.batch_loss import mean_distance

        if teacher is None or not batches.held:
            return None
        device, team = context.device, context.team
        return lambda model: team.agreed(lambda: mean_distance(model, teacher, batches.held, device))

    @property
    def _scheduled(self) -> bool:
        return self.schedule != "constant" or self.warmup > 0.0

    def _batches(self, context: Context) -> EpochBatches:
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

    def _teacher(
        self, model: nn.Module, state: State, context: Context
    ) -> contextlib.AbstractContextManager[Teacher | None]:
        """The original model, hooked if hidden outputs are matched; None without distillation."""
        from compressor.training.batch_loss import to_device
        from compressor.training.distillation import Teacher, refuse_unknown

        if not self.distill:
            return contextlib.nullcontext()
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
