"""A task without labels: the metric is fidelity to the original, and the original teaches."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import TaskError
from compressor.task.contract import Task
from compressor.task.fidelity import FIDELITY, fidelity, tensors_of
from compressor.task.signature import Call, as_call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from compressor.task.contract import Forward

_BATCH, _BATCHES, _SAMPLES = 16, 8, 64
_SIZES = (2, 3)
"""Batch sizes at which the axis of samples is looked for."""


class UnlabelledTask(Task):
    """A task that needs a model and examples only: subclass it and give `model` and `example`.

    Its metric says how closely the outputs of the original are kept: 1 - |outputs - original's| / |original's| of each
    sample. It says nothing about how good either of them is, and every report says so. `retrain` learns from the
    original (`distill: true`, `distill_weight: 1`). Override `samples` and `held_out` as soon as there are real inputs:
    on random examples a model is trained and measured where it is not used.
    """

    metric = FIDELITY
    remark = (
        "No labels were used: fidelity says how closely the outputs of the original are kept on the task's examples, "
        "not how good they are on your data."
    )

    def samples(self, generator: torch.Generator) -> Iterable[Any]:
        """One epoch of inputs to learn from, each as `example` gives them: by default eight batches of 16 examples."""
        for _ in range(_BATCHES):
            with seeded(int(torch.randint(2**31, (), generator=generator))):
                inputs = self.example(_BATCH, self.length)
            yield inputs

    def held_out(self) -> Iterable[Any]:
        """The inputs that the metric is computed on: by default 64 examples, the same every time."""
        with seeded(0):
            return [self.example(_BATCH, self.length) for _ in range(_SAMPLES // _BATCH)]

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Any, None]]:
        """The samples, without targets."""
        return ((inputs, None) for inputs in self.samples(generator))

    def loss(self, outputs: Any, target: Any) -> Tensor:
        """There are no labels."""
        raise NotImplementedError(
            "there are no labels; `retrain` with `distill: true` and `distill_weight: 1` needs none"
        )

    def evaluate(self, forward: Forward, limit: int | None = None) -> Tensor:
        """The fidelity (N,) of each sample of `held_out`; with a `limit`, of the first batches with as many."""
        model, axes = self._original
        scores: list[Tensor] = []
        for inputs in self.held_out():
            if limit is not None and sum(map(len, scores)) >= limit:
                break
            call = as_call(inputs)
            scores.append(fidelity(tensors_of(forward(*call.args, **call.kwargs)), _outputs(model, call), axes))
        return torch.cat(scores)

    @cached_property
    def _original(self) -> tuple[nn.Module, list[int | None]]:
        """The model, and the axis of samples in each of its outputs."""
        model = self.model().eval()
        with seeded(0):
            shapes = [
                [part.shape for part in _outputs(model, as_call(self.example(batch, self.length)))] for batch in _SIZES
            ]
        axes: list[int | None] = [
            next((axis for axis, sizes in enumerate(zip(*pair, strict=True)) if sizes == _SIZES), None)
            for pair in zip(*shapes, strict=True)
        ]
        if not any(axis is not None for axis in axes):
            raise TaskError(
                "no output of the model has an axis of samples, so fidelity cannot be computed",
                hint="let `example(batch, length)` follow `batch`, or write an `evaluate` of your own",
            )
        return model, axes


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's global generator seeded for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _outputs(model: nn.Module, call: Call) -> list[Tensor]:
    with torch.no_grad():
        return tensors_of(model(*call.args, **call.kwargs))
