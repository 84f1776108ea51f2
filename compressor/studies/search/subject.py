"""What a search knows of a task before its first trial: the model, its metric, and how long things take."""

from __future__ import annotations

import copy
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch

from compressor.errors import MethodError, TaskError
from compressor.measure import accuracy
from compressor.methods.base import Context, State
from compressor.pipeline.dry_run import try_out
from compressor.progress import Progress, Silent
from compressor.studies.search.compressed import Models
from compressor.studies.search.stored import importances
from compressor.surgery.units.remembered_scores import RememberedScores
from compressor.task.files_read import noting_files
from compressor.task.forwards import TorchForward
from compressor.task.narrowed_states import NarrowedStates
from compressor.task.view import has_validation_data
from compressor.training.distillation import first_tensor
from compressor.training.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from torch import Tensor, nn

    from compressor.measure.accuracy import Examined
    from compressor.methods.base import Batches
    from compressor.report import Drop
    from compressor.studies.search.compressed import Compressed
    from compressor.task.contract import Inputs
    from compressor.task.guard import GuardedTask
    from compressor.task.samples import Sample

_BATCHES: Final = 2
"""Training batches on which outputs are compared with the original's."""
SLICE: Final = 256
"""Samples of an evaluation in rungs without the whole retraining, for tasks that take a `limit`."""
_REPEATS: Final = 2
"""How often the original is evaluated to see whether the metric is noisy."""


@dataclass(frozen=True)
class CachedContext(Context):
    """A step's context whose calibration batches are drawn once for a whole search."""

    kept: dict[int, Batches] = field(default_factory=dict)

    def first_batches(self, count: int, *, hint: str = "") -> Batches:
        """The first training batches; the same tensors every time, which no step changes."""
        if count not in self.kept:
            self.kept[count] = super().first_batches(count, **({"hint": hint} if hint else {}))
        return self.kept[count]


@dataclass
class Subject:
    """A task under search."""

    task: GuardedTask
    device: torch.device
    seed: int
    progress: Progress = field(default_factory=Silent)
    now: Callable[[], float] = time.monotonic
    """The clock of the time limit, in seconds."""
    kept: dict[int, Batches] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=Remembered)
    """The original's outputs for the batches of retrainings."""
    scores: RememberedScores = field(default_factory=RememberedScores)
    """Of units."""
    seconds: float = 0.0
    """That an evaluation takes, once `original` is known."""

    @cached_property
    def model(self) -> nn.Module:
        """The original, in evaluation mode, on the device; never changed."""
        return self.task.model().to(self.device).eval()

    @cached_property
    def models(self) -> Models:
        """The models of the last trials."""
        return Models(self.task)

    @cached_property
    def real(self) -> tuple[Sample, ...]:
        """A few inputs of the task's own data, known once the task was tried."""
        with noting_files(self.task.opened):
            return try_out(self.task, self.model, self.device)

    @cached_property
    def validates(self) -> bool:
        """Whether the task has data that no test uses: then `evaluate` is not looked at while the search goes on."""
        return has_validation_data(self.task)

    @property
    def function(self) -> str:
        """What the search measures with."""
        return "validate" if self.validates else "evaluate"

    @cached_property
    def original(self) -> Examined:
        """The original's metric."""
        started = self.now()
        examined = self.examine(TorchForward(self.model, self.device))
        self.seconds = self.now() - started
        return examined

    @cached_property
    def noise(self) -> float:
        """By how much the metric of the same model differs from call to call; 0 if it does not."""
        values = [self.original.score.value]
        values += [self.examine(TorchForward(self.model, self.device)).score.value for _ in range(_REPEATS - 1)]
        return max(values) - min(values)

    @cached_property
    def original_slice(self) -> Examined:
        """The original's metric on the slice; the whole metric if the task takes no `limit`."""
        if not self.task.is_sliced(validation=self.validates):
            return self.original
        return self.examine(TorchForward(self.model, self.device), sliced=True)

    @cached_property
    def original_unseen(self) -> Examined:
        """The original's metric by `evaluate`."""
        return self.examine(TorchForward(self.model, self.device), unseen=True)

    @cached_property
    def importances(self) -> dict[str, float]:
        """How much the error of each matrix moves the outputs, on a training batch."""
        try:
            inputs = self.context().first_batches(1)[0][0]
        except MethodError:
            inputs = self.task.example(2, self.task.length)
        return importances(self.model, tuple(part.to(self.device) for part in inputs))

    @cached_property
    def _looked_at(self) -> tuple[list[Inputs], list[Tensor]]:
        """Inputs of training batches, and what the original gives for them; empty if that is no tensor of floats."""
        try:
            batches = [inputs for inputs, _ in self.context().first_batches(_BATCHES)]
        except MethodError:
            return [], []
        outputs = [self._first_output(self.model, inputs) for inputs in batches]
        floats = [part for part in outputs if part is not None and part.is_floating_point()]
        return (batches, floats) if len(floats) == len(batches) else ([], [])

    def outputs_error(self, model: nn.Module, structure: Sequence[Mapping[str, Any]]) -> float | None:
        r"""How far a model is from the original, :math:`\|y - y_0\|^2 / \|y_0\|^2` over some training batches.

        Args:
            model: On the device, in evaluation mode.
            structure: Its records, by which states among the inputs are smaller.

        Returns:
            None if there are no batches, or outputs of other shapes.
        """
        batches, wanted = self._looked_at
        task, distance, size = NarrowedStates(self.task, structure), 0.0, 0.0
        for inputs, exact in zip(batches, wanted, strict=True):
            actual = self._first_output(model, task.adapt(inputs))
            if actual is None or actual.shape != exact.shape:
                return None
            distance += float((actual.double() - exact.double()).square().sum())
            size += float(exact.double().square().sum())
        return distance / size if size and math.isfinite(distance) else None

    @torch.no_grad()
    def _first_output(self, model: nn.Module, inputs: Inputs) -> Tensor | None:
        return first_tensor(model(*(part.to(self.device) for part in inputs)))

    def examine(self, forward: Callable[..., object], *, sliced: bool = False, unseen: bool = False) -> Examined:
        """The metric of a model or a file.

        Args:
            forward: What is called.
            sliced: On the first samples only.
            unseen: By `evaluate` though the task has `validate`.
        """
        with self.limited(SLICE if sliced else None):
            return accuracy.examine(self.task, forward, validation=self.validates and not unseen, seed=self.seed)

    def unseen_drop(self, examined: Examined) -> Drop:
        """How much worse than the original by `evaluate`."""
        return accuracy.drop(self.original_unseen, examined, seed=self.seed)

    def drop(self, examined: Examined, *, sliced: bool = False) -> Drop:
        """How much worse than the original."""
        return accuracy.drop(self.original_slice if sliced else self.original, examined, seed=self.seed)

    @contextmanager
    def limited(self, samples: int | None) -> Iterator[None]:
        """Let the task evaluate on so many samples for a while, if it can."""
        before = self.task.limit
        self.task.limit = samples
        try:
            yield
        finally:
            self.task.limit = before

    def context(self, progress: Progress | None = None) -> Context:
        """For the steps of one recipe, from the seed on."""
        return CachedContext(
            task=self.task,
            original=self.model,
            device=self.device,
            generator=torch.Generator().manual_seed(self.seed),
            progress=progress or Silent(),
            kept=self.kept,
            remembered=self.remembered,
            scores=self.scores,
        )

    def compressed(self, steps: Sequence[Mapping[str, Any]] = (), progress: Progress | None = None) -> Compressed:
        """The model after the steps of a recipe, from the seed on; the original without any.

        Raises:
            MethodError: A step cannot be carried out.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.models.after(steps, self.context(progress), self._state)

    def _state(self) -> State:
        """Where a recipe starts."""
        return State(copy.deepcopy(self.model), self.task.masks)

    def check(self) -> None:
        """Try the task and its metric.

        Raises:
            TaskError: Something of it does not run, or the metric is not a finite number.
        """
        self.progress.say("trying the task")
        _ = self.real
        self.progress.say("evaluating the original model")
        _ = self.original
        if self.noise and not self.original.score.value:
            raise TaskError("the metric is 0 and changes from call to call", hint="look at `evaluate`")
