"""Evaluates a point at a rung: without training, after a short one, or in full on the exported file."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import torch

from compressor.errors import CompressorError, MethodError, TaskError
from compressor.measure import size
from compressor.onnx_graphs import targets
from compressor.progress import Progress, Silent
from compressor.studies.search import files
from compressor.studies.search.hypervolume import counts
from compressor.studies.search.latency_table import LatencyTable
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.stored import bits_at_hand, round_in_place, stored_forms, weight_bytes
from compressor.studies.search.within_target import refuse_more
from compressor.task.forwards import TorchForward
from compressor.task.narrowed_states import NarrowedStates

if TYPE_CHECKING:
    from torch import nn

    from compressor.measure.accuracy import Examined
    from compressor.methods.base import State
    from compressor.studies.search.compressed import Compressed
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.space import Rung, Space
    from compressor.studies.search.subject import Subject

_SILENT: Final = Silent()


class Evaluator:
    """Carries recipes out on one task."""

    def __init__(self, subject: Subject, space: Space, progress: Progress = _SILENT) -> None:
        """For points of `space`."""
        self.subject = subject
        self.space = space
        self.progress = progress
        self.table = LatencyTable()
        self.largest: int | None = None
        """Bytes of the original's file, once it is known: a run refuses a larger one."""
        self.target = None if space.goals.target is None else targets.get(space.goals.target)

    def at(self, point: Point, rung: Rung) -> Outcome:
        """What a rung gives for a point. A recipe that cannot be carried out is no error: the outcome says why."""
        started = self.subject.now()
        try:
            with torch.random.fork_rng():
                torch.manual_seed(self.subject.seed)
                outcome = self._in_full(point) if rung == 2 else self._of_torch(point, rung)
        except TaskError as error:  # a metric that is not finite, or code of the task that a smaller model breaks
            outcome = Outcome(refused=f"{self.subject.function}: {' '.join(error.message.split())}")
        except CompressorError as error:
            outcome = Outcome(refused=" ".join(error.message.split()))
        return outcome.model_copy(update={"seconds": round(self.subject.now() - started, 3)})

    def compressed(self, point: Point, rung: Rung) -> Compressed:
        """The model after the steps of a rung.

        Raises:
            MethodError: A step cannot be carried out.
        """
        model = self.subject.compressed(self.space.steps(point, rung), self.progress)
        broken = [name for name, item in model.state.model.named_parameters() if not bool(item.isfinite().all())]
        if broken:
            raise MethodError(f"weights are not finite after training: {', '.join(broken[:3])}")
        return model

    def _of_torch(self, point: Point, rung: Rung) -> Outcome:
        """The PyTorch model with its weights rounded as the file's are; the size is computed."""
        state = self.compressed(point, rung).state
        model, taken = self._as_stored(state, point, rung)
        outputs_error = self.subject.outputs_error(model, state.structure)
        examined = self.subject.examine(TorchForward(model, self.subject.device), sliced=True)
        return Outcome(
            drop=self.subject.drop(examined, sliced=True),
            outputs_error=outputs_error,
            score=examined.score.value,
            weight_bytes=taken,
            layers_ms=self._layers(state),
            parameters=size.count(state.model)[0],
        )

    def _as_stored(self, state: State, point: Point, rung: Rung) -> tuple[nn.Module, int]:
        """A copy of the model with its weights rounded to the nearest, and the bytes that they take of a file."""
        model, stored = copy.deepcopy(state.model), self.space.stored(point)
        importance = self.subject.importances if stored.word == "mixed" else {}
        trained = rung > 0 and self.space.rounds_in_training(point)
        forms = stored_forms(model, stored, importance, bits_at_hand(model) if trained else {})
        round_in_place(forms)
        return model, weight_bytes(model, forms, stored.word)

    def _is_near(self, examined: Examined) -> bool:
        """Whether a file is worth its latency, and `evaluate`; others are done with."""
        return counts(self.subject.drop(examined).value, self.space.goals.max_drop)

    def _layers(self, state: State) -> float | None:
        """By the table, if latency counts."""
        if not self.space.goals.times_files:
            return None
        return self.table.of_model(state.model, NarrowedStates(self.subject.task, state.structure))

    def _in_full(self, point: Point) -> Outcome:
        """The exported file: its bytes, its latency if that counts, and its metric."""
        model = self.compressed(point, 2)
        state, timed = model.state, self.space.goals.times_files
        options = self.space.export(point)
        rounded, taken = self._as_stored(state, point, 2)  # as in the rungs before, so that all results can be compared
        written = files.write(self.subject, model, options, timed=timed, target=self.target, worth_more=self._is_near)
        if self.largest is not None and written.bytes > self.largest and not options.may_be_larger:
            return Outcome(  # with its bytes, from which others of this precision are predicted
                refused=f"the file has {written.bytes:,} bytes, more than the {self.largest:,} of the original",
                bytes=written.bytes,
                weight_bytes=taken,
            )
        if self.target is not None:
            refuse_more(self.space, str(self.space.precision(point)), written.refused)
        return Outcome(
            drop=self.subject.drop(written.examined),
            outputs_error=self.subject.outputs_error(rounded, state.structure),
            score=written.examined.score.value,
            bytes=written.bytes,
            weight_bytes=taken,
            latency_ms=written.latency_ms,
            flash_bytes=written.flash_bytes,
            ram_bytes=written.ram_bytes,
            layers_ms=self._layers(state),
            parameters=size.count(state.model)[0],
            unseen=None if written.unseen is None else self.subject.unseen_drop(written.unseen),
            unseen_score=None if written.unseen is None else written.unseen.score.value,
        )
