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
    from compressor.training.averaging import Average
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
    distance: Callable[[nn.Module], float] | None = None
    """What decides instead of the metric which weights are best, and when to stop; smaller is better."""

    def measured(self, model: nn.Module) -> dict[str, float]:
        """The metric, and the distance if that decides."""
        values = {"metric": self.metric(model)}
        return values if self.distance is None else {**values, "distance": self.distance(model)}

    @property
    def decides(self) -> str:
        """What of `measured` does."""
        return "metric" if self.distance is None else "distance"

    @property
    def best(self) -> str:
        """What the best weights have, in words."""
        return "the best validation metric" if self.distance is None else "the least distance to the original"


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
    average: Average | None = None,
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
        average: Mean of the weights of the last steps, measured after each epoch once it has begun; only if the best
            weights are kept.

    Raises:
        MethodError: Training broke down.
        TaskError: The metric is not finite.
    """
    higher = validation.higher_is_better and validation.distance is None
    best = BestWeights(higher_is_better=higher, patience=validation.patience)
    kept = _Kept(model, trainer, batches, best, average)
    history: History = []
    with progress.bar("retrain", batches.total) as bar:
        known = snapshots.load()
        if known is not None:
            history += kept.put_back(*known, bar)
        elif validation.keep_best:  # training may make it worse
            with around():
                best.see(0, validation.measured(model.eval())[validation.decides], model)
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
                values = validation.measured(model.eval())
            history.append({"epoch": float(epoch), "loss": mean, **values, "lr": trainer.lr, "seconds": seconds})
            if validation.keep_best:
                best.see(epoch, values[validation.decides], model)
            if average is not None and average.count:
                with average.held():
                    with around():
                        of_average = validation.measured(model)
                    best.see(epoch, of_average[validation.decides], model, averaged=True)
                history[-1] |= {f"{name} of the average": value for name, value in of_average.items()}
            snapshots.save(kept.tensors, partial(kept.facts, history))
    if not validation.keep_best:
        return history, []
    best.restore(model)
    if best.epoch == 0:
        what = f"the weights from before training kept: none of {len(history)} epochs has a better validation metric"
        if validation.distance is not None:
            what = f"the weights from before training kept: {validation.best} of {len(history)} epochs is theirs"
        return history, [what]
    of_epoch = f"weights of epoch {best.epoch} of {len(history)} kept"
    if best.averaged:
        of_epoch = f"the mean of the weights up to epoch {best.epoch} of {len(history)} kept"
    return history, [f"{of_epoch}: {validation.best}"]


@dataclass(frozen=True)
class _Kept:
    """Everything that the next epoch begins with."""

    model: nn.Module
    trainer: Trainer
    batches: EpochBatches
    best: BestWeights
    average: Average | None

    def tensors(self) -> dict[str, Tensor]:
        """All but what is a number."""
        kept = {f"best.{name}": value for name, value in self.best.snapshot()[0].items()}
        buffers = {f"buffer.{name}": value for name, value in self.model.named_buffers()}
        means = {} if self.average is None else {f"mean.{name}": item for name, item in self.average.mean.items()}
        return {**self.trainer.snapshot()[0], **kept, **buffers, **means, "batches": self.batches.snapshot()}

    def facts(self, history: History) -> dict[str, Any]:
        """The numbers."""
        count = 0 if self.average is None else self.average.count
        best = self.best.snapshot()[1]
        return {"trainer": self.trainer.snapshot()[1], "best": best, "averaged": count, "history": history}

    def put_back(self, tensors: Mapping[str, Tensor], facts: Any, bar: Bar) -> History:
        """Go on from a snapshot; gives its history."""
        self.trainer.put_back(tensors, facts["trainer"])
        copy_into(dict(self.model.named_buffers()), tensors, "buffer.")
        kept = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        self.best.put_back(kept, facts["best"])
        if self.average is not None:
            copy_into(self.average.mean, tensors, "mean.")
            self.average.count = facts["averaged"]
        history: History = facts["history"]
        self.batches.put_back(tensors["batches"], len(history), bar)
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
