"""`retrain`: train the compressed model on the task, masks held exactly, the original as teacher where asked."""

from __future__ import annotations

import contextlib
import copy
import difflib
import itertools
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import CompressorError, MethodError, TaskError
from compressor.methods.base import Context, Method, State, StepResult
from compressor.report import Change, Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch
    from torch import Tensor, nn

    from compressor.progress import Bar
    from compressor.training.distillation import Teacher
    from compressor.training.trainer import Trainer

_QUICK_BATCHES = 4
"""Batches of a rehearsal."""


class Retrain(Method):
    """Train the model on the task's batches. Pruned weights stay exactly zero.

    loss = (1 - distill_weight) * task loss + distill_weight * (output loss + mean hidden loss), the second part
    only with `distill: true`; the teacher is the model before the first step of the recipe.
    """

    summary: ClassVar[str] = "train on the task, pruned weights held at zero, optionally taught by the original model"

    method: Literal["retrain"] = "retrain"
    """The recipe word."""

    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the task's training batches."""

    max_batches: Annotated[int, Field(ge=1)] | None = None
    """At most this many batches an epoch; all of them where it is left out."""

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
    """Stop when the task's validation metric has not improved for this many epochs; the best weights are restored."""

    keep_best: bool = False
    """End with the weights of the epoch of the best validation metric instead of the last epoch's."""

    distill: bool = False
    """Learn from the original model's outputs too."""

    distill_loss: Literal["kl", "mse", "cosine"] = "kl"
    """Distance of the outputs (the first one, where there are several): `kl` of softmax over the last axis (logits),
    `mse`, or `cosine` distance over the last axis (embeddings)."""

    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 2.0
    """Softens both softmaxes of `distill_loss: kl`, whose value is multiplied by its square."""

    distill_weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the distillation loss; at 1 the task's loss is not computed and labels are not used."""

    distill_hidden: tuple[str, ...] = ()
    """Names of modules whose outputs are matched by mean squared error. Where units were removed, a linear map from
    the smaller to the larger output is learned beside the model and thrown away at the end."""

    noise_eta: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Gradient noise of variance noise_eta / (1 + t)^noise_gamma at optimizer step t, added after clipping
    (arXiv 1511.06807, which used 0.01, 0.3 and 1.0); 0 is off."""

    noise_gamma: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.55
    """How fast the gradient noise fades."""

    quantize: Literal["int8", "int4"] | None = None
    """Make rounding part of training: matrices of recurrent layers, Linear and Embedding are rounded in the forward
    pass, their gradients pass straight through (arXiv 1308.3432), and the step ends with rounded weights. For an export
    with the same `precision`, where rounding alone costs too much. Embeddings stay in 8 bits."""

    keep_float: tuple[str, ...] = ()
    """Globs of parameters (`lstm.weight_ih_l0`) that `quantize` leaves exact, as the export's `keep_float` does by the
    names of the file."""

    bf16: bool = False
    """bfloat16 autocast on CUDA; ignored, with a note in the report, on the CPU."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Retrain:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"`momentum` belongs to `optimizer: sgd`, not to `{self.optimizer}`")
        if not self.distill:
            self._need_default("distill_loss", "temperature", "distill_weight", "distill_hidden", needs="distill: true")
        elif self.distill_loss != "kl":
            self._need_default("temperature", needs="distill_loss: kl")
        if self.quantize is None:
            self._need_default("keep_float", needs="quantize: int8")
        if not self.noise_eta:
            self._need_default("noise_gamma", needs="a `noise_eta` above 0")
        return self

    def _need_default(self, *names: str, needs: str) -> None:
        """Refuse an option that would have no effect; a default written out is fine."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                need = needs if needs.startswith("a ") else f"`{needs}`"
                raise ValueError(f"`{name}` has no effect without {need}")

    def check(self, model: nn.Module) -> None:
        """Refuse a model without trainable parameters and hidden modules that it does not have."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise MethodError(
                "the model has no parameter to train",
                hint="parameters with `requires_grad=False` are left alone: unfreeze some of them",
            )
        for name in self.distill_hidden:
            _refuse_unknown_module(name, model)
        if self.quantize is not None:
            from compressor.training.rounding import Rounding

            Rounding(model, self.quantize, self.keep_float)

    def apply(self, state: State, context: Context) -> StepResult:
        """Train a copy of the model."""
        self.check(state.model)
        model = _trainable_copy(state, context.device)
        with _seeded(context), _enough_memory():
            history, notes = self._train(model, state, context)
        model.eval()
        if self.bf16 and context.device.type != "cuda":
            notes.append("bf16 ignored: it needs CUDA")
        changes, skipped = compare(state.model, model, state.masks)
        if not changes:
            names = ", ".join(skip.name for skip in skipped)
            raise MethodError(f"retraining changed none of {names}", hint="raise `lr`, or prune fewer weights")
        return StepResult(State(model, state.masks, state.structure), changes, skipped, tuple(history), tuple(notes))

    def _train(self, model: nn.Module, state: State, context: Context) -> tuple[list[dict[str, float]], list[str]]:
        """Train `model` in place; gives a row an epoch, and notes."""
        from compressor.training.rounding import Rounding
        from compressor.training.trainer import Noise, Trainer, lr_factor, make_optimizer

        rounding = None if self.quantize is None else Rounding(model, self.quantize, self.keep_float)
        around = contextlib.nullcontext if rounding is None else rounding.held
        with self._teacher(model, context) as teacher:
            parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
            parameters |= teacher.parameters() if teacher else {}
            optimizer = make_optimizer(
                self.optimizer,
                list(parameters.values()),
                lr=self.lr,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
            )
            batches = _Batches(self, context)
            steps = batches.steps
            trainer = Trainer(
                parameters,
                optimizer,
                masks=state.masks,
                clip=self.clip,
                noise=Noise(self.noise_eta, self.noise_gamma, _device_generator(context)) if self.noise_eta else None,
                lr_at=None if steps is None else lambda t: self.lr * lr_factor(t, steps, self.schedule, self.warmup),
                around=around,
            )
            loss = self._loss(model, teacher, context)
            history, notes = self._epochs(model, state, context, trainer, batches, loss, around)
        if rounding is not None:
            rounding.keep()
            notes.append(f"{len(rounding.parameters)} matrices trained and left rounded to {self.quantize}")
        return history, notes

    def _epochs(
        self,
        model: nn.Module,
        state: State,
        context: Context,
        trainer: Trainer,
        batches: _Batches,
        loss: Callable[[Any], Tensor],
        around: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> tuple[list[dict[str, float]], list[str]]:
        from compressor.nn.masks import prune_
        from compressor.training.trainer import BestWeights

        keep = self.keep_best or self.early_stopping is not None
        best = BestWeights(higher_is_better=context.task.higher_is_better, patience=self.early_stopping)
        history: list[dict[str, float]] = []
        with context.progress.bar("retrain", batches.total) as bar:
            for epoch in range(1, batches.epochs + 1):
                model.train()
                started = time.perf_counter()
                mean = trainer.epoch(batches.epoch(), loss, batches.reporter(bar, epoch), number=epoch)
                seconds = time.perf_counter() - started
                prune_(model, state.masks)  # they hold by themselves; a model that writes to its weights breaks them
                batches.epoch_done(bar)
                with around():
                    metric = _metric(model.eval(), context)
                history.append(
                    {"epoch": float(epoch), "loss": mean, "metric": metric, "lr": trainer.lr, "seconds": seconds}
                )
                if keep and best.see(epoch, metric, model):
                    break
        if not keep:
            return history, []
        best.restore(model)
        return history, [f"weights of epoch {best.epoch} of {len(history)} kept: the best validation metric"]

    def _teacher(self, model: nn.Module, context: Context) -> contextlib.AbstractContextManager[Teacher | None]:
        """The original model, hooked where hidden outputs are matched; None where there is no distillation."""
        from compressor.training.distillation import Teacher
        from compressor.training.trainer import to_device

        if not self.distill:
            return contextlib.nullcontext()
        for name in self.distill_hidden:
            _refuse_unknown_module(name, context.original)
        example = to_device(context.task.example(2, context.task.length), context.device) if self.distill_hidden else ()
        return Teacher(
            context.original,
            model.eval(),
            kind=self.distill_loss,
            temperature=self.temperature,
            hidden=self.distill_hidden,
            example=example,
        )

    def _loss(self, model: nn.Module, teacher: Teacher | None, context: Context) -> Callable[[Any], Tensor]:
        """Batch -> loss, with the model and the teacher run under autocast where it is asked for."""
        import torch

        from compressor.training.trainer import check_loss, to_device

        device, task, share = context.device, context.task, self.distill_weight
        move = device.type != "cpu"
        bf16 = self.bf16 and device.type == "cuda"

        def of_batch(batch: Any) -> Tensor:
            inputs, target = _parts(batch)
            if move:
                inputs, target = to_device(inputs, device), to_device(target, device)
            outputs = _run(model, inputs)
            if teacher is None:
                return task_loss(outputs, target)
            distance = teacher.loss(inputs, outputs)
            return distance if share == 1.0 else (1.0 - share) * task_loss(outputs, target) + share * distance

        def task_loss(outputs: Any, target: Any) -> Tensor:
            loss = task.loss(outputs, target)
            check_loss(loss)
            return loss

        def of_batch_bf16(batch: Any) -> Tensor:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                return of_batch(batch)

        return of_batch_bf16 if bf16 else of_batch


class _Batches:
    """The task's batches, epoch after epoch, their number where it is known, and the bar that counts them."""

    def __init__(self, options: Retrain, context: Context) -> None:
        self._context = context
        self._limit = options.max_batches
        self.epochs = options.epochs
        if context.quick:
            self._limit = min(self._limit or _QUICK_BATCHES, _QUICK_BATCHES)
            self.epochs = 1
        scheduled = options.schedule != "constant" or options.warmup > 0.0
        self._first, per_epoch = self._look_ahead(count=scheduled)
        self.total = self.epochs if per_epoch is None else self.epochs * per_epoch
        """Of the bar: batches, or epochs where the number of batches is not known."""
        self._in_batches = per_epoch is not None
        self.steps = self.epochs * per_epoch if scheduled and per_epoch is not None else None
        """Optimizer steps of the learning-rate schedule; None where the rate is constant."""

    def epoch(self) -> Iterable[Any]:
        """The next epoch's batches."""
        batches, self._first = self._first, None
        return self._limited(self._draw() if batches is None else batches)

    def reporter(self, bar: Bar, epoch: int) -> Callable[[int, float], None]:
        """What the trainer calls with the number of batches done and the latest loss."""

        def report(done: int, loss: float) -> None:
            bar.advance(done if self._in_batches else 0, note=f"epoch {epoch}/{self.epochs}, loss {loss:.4g}")

        return report

    def epoch_done(self, bar: Bar) -> None:
        """Advance a bar that counts epochs."""
        if not self._in_batches:
            bar.advance(1)

    def _draw(self) -> Iterable[Any]:
        return self._context.task.batches(self._context.generator)

    def _limited(self, batches: Iterable[Any]) -> Iterable[Any]:
        return batches if self._limit is None else itertools.islice(batches, self._limit)

    def _look_ahead(self, *, count: bool) -> tuple[Iterable[Any] | None, int | None]:
        """The first epoch's batches and how many there are.

        Batches from a Python generator have no length. A schedule needs it, so they are counted once, from the
        same state of the random generator.
        """
        state = self._context.generator.get_state()
        first = self._draw()
        try:
            size = len(first)  # type: ignore[arg-type]
        except TypeError:
            if not count:
                return first, None
            size = sum(1 for _ in self._limited(first))
            self._context.generator.set_state(state)
            return None, size
        return first, size if self._limit is None else min(size, self._limit)


def compare(
    before: nn.Module, after: nn.Module, masks: Mapping[str, Tensor]
) -> tuple[tuple[Change, ...], tuple[Skip, ...]]:
    """A `trained` change for each module whose own parameters differ, and the parameters that do not.

    Pruned weights do not count as different.
    """
    import torch

    old = dict(before.named_parameters())
    skipped: list[Skip] = []
    groups: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, parameter in after.named_parameters():
        was = old[name].detach().to(parameter.device)
        if name in masks:
            was = was.masked_fill(~masks[name].to(parameter.device), 0.0)
        if torch.equal(was, parameter):
            frozen = "frozen: `requires_grad` is False"
            idle = "unchanged: it received no gradient, or all of it is pruned"
            skipped.append(Skip(name=name, reason=idle if parameter.requires_grad else frozen))
        else:
            groups.setdefault(name.rpartition(".")[0], []).append((was, parameter.detach()))
    return tuple(_trained(name, pairs) for name, pairs in groups.items()), tuple(skipped)


def _trained(module: str, pairs: list[tuple[Tensor, Tensor]]) -> Change:
    count = sum(after.numel() for _, after in pairs)
    largest = max(float((after - before).abs().max()) for before, after in pairs)
    return Change(
        name=module or "(model)",
        action="trained",
        parameters_before=count,
        parameters_after=count,
        nonzeros_before=sum(int(before.count_nonzero()) for before, _ in pairs),
        nonzeros_after=sum(int(after.count_nonzero()) for _, after in pairs),
        note=f"largest change {largest:.3g}",
    )


def _trainable_copy(state: State, device: torch.device) -> nn.Module:
    """A copy on the device, pruned weights exactly zero, cuDNN's weights in one piece."""
    from compressor.nn.masks import prune_
    from compressor.nn.recurrent.layers import recurrent_modules

    model = copy.deepcopy(state.model).to(device)
    prune_(model, state.masks)
    for module in recurrent_modules(model).values():
        module.flatten_parameters()
    return model


@contextlib.contextmanager
def _seeded(context: Context) -> Iterator[None]:
    """Seed torch's global generators, from which dropout draws, and put them back afterwards."""
    import torch

    cuda = context.device.type == "cuda"
    seed = _draw_seed(context.generator)
    with torch.random.fork_rng(devices=[context.device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(context.device):
                torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MethodError(
            f"retraining ran out of memory: {str(error).splitlines()[0]}",
            hint="give smaller batches in `Task.batches`, or run with `--device cpu`",
        ) from error


def _device_generator(context: Context) -> torch.Generator:
    """A generator on the device, seeded from the context's."""
    import torch

    return torch.Generator(context.device).manual_seed(_draw_seed(context.generator))


def _draw_seed(generator: torch.Generator) -> int:
    import torch

    return int(torch.randint(2**62, (), generator=generator))


def _metric(model: nn.Module, context: Context) -> float:
    from compressor.measure import accuracy

    forward = accuracy.torch_forward(model, context.device)
    return accuracy.score(context.task, forward, validation=True).value


def _parts(batch: Any) -> tuple[tuple[Any, ...], Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], (tuple, list)):
        return tuple(batch[0]), batch[1]
    raise TaskError(
        "`Task.batches` gave something else than (inputs, target) with a tuple of inputs",
        hint="yield `((x,), y)`, also where there is one input only",
    )


def _run(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    import torch

    try:
        return model(*inputs)
    except (CompressorError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(item.shape)) if hasattr(item, "shape") else repr(item) for item in inputs)
        raise MethodError(
            f"the model raised {type(error).__name__} on a training batch of inputs {shapes}: {error}",
            hint="`Task.batches` must give the inputs that the model's `forward` takes",
        ) from error


def _refuse_unknown_module(name: str, model: nn.Module) -> None:
    names = [path for path, _ in model.named_modules() if path]
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    raise MethodError(
        f"`distill_hidden`: the model has no module `{name}`",
        hint=f"did you mean `{near[0]}`?" if near else f"modules: {', '.join(names) or 'none'}",
    )
