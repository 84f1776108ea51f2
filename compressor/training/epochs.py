"""Trains a model over epochs, with a metric after each, and keeps the best weights if asked to."""

from __future__ import annotations

import copy
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.masks import prune_
from compressor.nn.recurrent.layers import recurrent_modules
from compressor.training.best_weights import BestWeights
from compressor.training.snapshots import NoSnapshots
from compressor.training.trainer import copy_into

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from compressor.progress import Bar, Progress
    from compressor.training.epoch_batches import EpochBatches
    from compressor.training.snapshots import Snapshots
    from compressor.training.trainer import Trainer

History = list[dict[str, float]]
"""A row an epoch."""
_NO_SNAPSHOTS = NoSnapshots()


@dataclass(frozen=True)
class Validation:
    """How the model is measured after each epoch, and what follows from it."""

    metric: Callable[[nn.Module], float]
    higher_is_better: bool
    keep_best: bool
    """End with the weights of the best epoch, or those from before the first if none is better."""
    patience: int | None
    """Stop after so many epochs without improvement."""


def train_epochs(
    model: nn.Module,
    trainer: Trainer,
    batches: EpochBatches,
    loss: Callable[[Any], Tensor],
    validation: Validation,
    *,
    masks: Mapping[str, Tensor],
    progress: Progress,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    snapshots: Snapshots = _NO_SNAPSHOTS,
) -> tuple[History, list[str]]:
    """Train in place; gives a row an epoch, and notes.

    Args:
        model: What `trainer` trains.
        trainer: Takes the steps.
        batches: Epoch after epoch.
        loss: Batch -> scalar.
        validation: What is measured.
        masks: Parameter name -> boolean mask, True = kept.
        progress: Where progress is told.
        around: Entered around each measurement.
        snapshots: Where it is kept after each epoch how far the training is; it goes on from what is there.

    Raises:
        MethodError: Training broke down.
        TaskError: The metric is not finite.
    """
    best = BestWeights(higher_is_better=validation.higher_is_better, patience=validation.patience)
    history: History = []
    with progress.bar("retrain", batches.total) as bar:
        known = snapshots.load()
        if known is not None:
            history += _put_back(known, model, trainer, batches, best, bar)
        elif validation.keep_best:  # training may make it worse
            with around():
                best.see(0, validation.metric(model.eval()), model)
        for epoch in range(len(history) + 1, batches.epochs + 1):
            if best.is_over:
                break
            model.train()
            started = time.perf_counter()
            mean = trainer.epoch(batches.epoch(), loss, batches.reporter(bar, epoch), number=epoch)
            seconds = time.perf_counter() - started
            prune_(model, masks)  # they hold by themselves; a model that writes to its weights breaks them
            batches.epoch_done(bar)
            with around():
                metric = validation.metric(model.eval())
            history.append(
                {"epoch": float(epoch), "loss": mean, "metric": metric, "lr": trainer.lr, "seconds": seconds}
            )
            if validation.keep_best:
                best.see(epoch, metric, model)
            snapshots.save(partial(_tensors, model, trainer, batches, best), partial(_facts, trainer, best, history))
    if not validation.keep_best:
        return history, []
    best.restore(model)
    if best.epoch == 0:
        what = f"the weights from before training kept: none of {len(history)} epochs has a better validation metric"
        return history, [what]
    return history, [f"weights of epoch {best.epoch} of {len(history)} kept: the best validation metric"]


def _tensors(model: nn.Module, trainer: Trainer, batches: EpochBatches, best: BestWeights) -> dict[str, Tensor]:
    """Everything that the next epoch begins with, but for what is a number."""
    kept = {f"best.{name}": value for name, value in best.snapshot()[0].items()}
    buffers = {f"buffer.{name}": value for name, value in model.named_buffers()}
    return {**trainer.snapshot()[0], **kept, **buffers, "batches": batches.snapshot()}


def _facts(trainer: Trainer, best: BestWeights, history: History) -> dict[str, Any]:
    return {"trainer": trainer.snapshot()[1], "best": best.snapshot()[1], "history": history}


def _put_back(
    known: tuple[Mapping[str, Tensor], Any],
    model: nn.Module,
    trainer: Trainer,
    batches: EpochBatches,
    best: BestWeights,
    bar: Bar,
) -> History:
    """Go on from a snapshot; gives its history."""
    tensors, facts = known
    trainer.put_back(tensors, facts["trainer"])
    copy_into(dict(model.named_buffers()), tensors, "buffer.")
    kept = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    best.put_back(kept, facts["best"])
    history: History = facts["history"]
    batches.put_back(tensors["batches"], len(history), bar)
    return history


def trainable_copy(model: nn.Module, masks: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """A copy on the device, pruned weights exactly zero, cuDNN's weights in one piece."""
    model = copy.deepcopy(model).to(device)
    prune_(model, masks)
    for module in recurrent_modules(model).values():
        module.flatten_parameters()
    return model


@contextmanager
def enough_memory() -> Iterator[None]:
    """Say what to do if memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MethodError(
            f"retraining ran out of memory: {str(error).splitlines()[0]}",
            hint="give smaller batches in `Task.batches`, or run with `--device cpu`",
        ) from error
