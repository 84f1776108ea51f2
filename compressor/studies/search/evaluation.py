"""Evaluates a point at a rung: without training, after a short one, or in full on the exported file."""

from __future__ import annotations

import copy
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

import torch

from compressor.errors import CompressorError, MethodError, TaskError
from compressor.formats import Job, export
from compressor.measure import latency, size
from compressor.methods import METHODS
from compressor.runtimes.forward import open_forward
from compressor.studies.search.outcomes import Outcome
from compressor.task.fixed_axes import dynamic, fixed
from compressor.task.forwards import TorchForward
from compressor.task.narrowed_states import NarrowedStates
from compressor.training.rounding import Rounding

if TYPE_CHECKING:
    from compressor.methods.base import State
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.prediction import Prediction
    from compressor.studies.search.space import Rung, Space
    from compressor.studies.search.subject import Subject

_ROUNDED: Final = ("int8", "int4")
_LATENCY_SECONDS: Final = 5.0


class Evaluator:
    """Carries recipes out on one task."""

    def __init__(self, subject: Subject, space: Space, prediction: Prediction) -> None:
        """For points of `space`; bytes and latency of files that are not written come from `prediction`."""
        self.subject = subject
        self.space = space
        self.prediction = prediction

    def at(self, point: Point, rung: Rung) -> Outcome:
        """What a rung gives for a point. A recipe that cannot be carried out is no error: the outcome says why.

        Raises:
            TaskError: The task's own functions fail.
        """
        started = time.perf_counter()
        try:
            with torch.random.fork_rng():
                torch.manual_seed(self.subject.seed)
                outcome = self._in_full(point) if rung == 2 else self._of_torch(point, rung)
        except TaskError as error:
            if error.__cause__ is not None:  # raised by the task's own code
                raise
            outcome = Outcome(refused=error.message)
        except CompressorError as error:
            outcome = Outcome(refused=" ".join(error.message.split()))
        return outcome.model_copy(update={"seconds": time.perf_counter() - started})

    def compressed(self, point: Point, rung: Rung) -> State:
        """The model after the steps of a rung.

        Raises:
            MethodError: A step cannot be carried out.
        """
        context, state = self.subject.context(), self.subject.state()
        for step in self.space.steps(point, rung):
            state = METHODS[step["method"]].model_validate(step).apply(state, context).state
        broken = [name for name, item in state.model.named_parameters() if not bool(item.isfinite().all())]
        if broken:
            raise MethodError(f"weights are not finite after training: {', '.join(broken[:3])}")
        return state

    def _of_torch(self, point: Point, rung: Rung) -> Outcome:
        """The PyTorch model with its weights rounded as the file's are; the size is computed."""
        state = self.compressed(point, rung)
        model = copy.deepcopy(state.model)
        precision = self.space.precision(point)
        if precision in _ROUNDED:
            Rounding(model, cast("Literal['int8', 'int4']", precision)).keep()
        examined = self.subject.examine(TorchForward(model, self.subject.device), sliced=True)
        return Outcome(
            drop=self.subject.drop(examined, sliced=True),
            score=examined.score.value,
            bytes=self.prediction.bytes(state.model, precision),
            latency_ms=self.prediction.latency(state.model),
            parameters=size.count(state.model)[0],
        )

    def _in_full(self, point: Point) -> Outcome:
        """The exported file: its bytes, its latency if that counts, and its metric."""
        state = self.compressed(point, 2)
        options = self.space.export(point)
        task = fixed(NarrowedStates(self.subject.task, state.structure), options.fixed_shapes)
        with tempfile.TemporaryDirectory(prefix="compressor-search-") as folder:
            path = Path(folder) / options.file_name()
            model = copy.deepcopy(state.model).cpu().eval()
            artifact = export(
                Job(model, task, path, options, seed=self.subject.seed, real=self.subject.real)  # fmt: skip
            )
            with closing(open_forward(path, dynamic(task))) as forward:
                examined = self.subject.examine(forward)
                unseen = self.subject.examine(forward, unseen=True) if self.subject.validates else None
                call = forward.one_call(task.example(1, task.length)) if hasattr(forward, "one_call") else None
            milliseconds = None
            if self.space.goals.times_files and call is not None:
                (measured,), _ = latency.compare(
                    [path], [call], batch=1, length=task.length, seed=self.subject.seed, max_seconds=_LATENCY_SECONDS
                )
                milliseconds = measured.p50
        self.prediction.learn(state.model, self.space.precision(point), artifact.bytes, milliseconds)
        return Outcome(
            drop=self.subject.drop(examined),
            score=examined.score.value,
            bytes=artifact.bytes,
            latency_ms=milliseconds,
            parameters=size.count(state.model)[0],
            unseen=None if unseen is None else self.subject.unseen_drop(unseen),
            unseen_score=None if unseen is None else unseen.score.value,
        )
