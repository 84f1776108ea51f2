"""Evaluates a point at a rung: without training, after a short one, or in full on the exported file."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import torch

from compressor.errors import CompressorError, MethodError, TaskError
from compressor.measure import size
from compressor.methods import METHODS
from compressor.methods.placing import carried_out
from compressor.onnx_graphs import targets
from compressor.progress import Progress, Silent
from compressor.studies.search import files
from compressor.studies.search.latency_table import LatencyTable
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.stored import round_in_place, stored_forms, weight_bytes
from compressor.studies.search.within_target import refuse_more
from compressor.task.forwards import TorchForward
from compressor.task.narrowed_states import NarrowedStates

if TYPE_CHECKING:
    from torch import nn

    from compressor.methods.base import State
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.space import Rung, Space
    from compressor.studies.search.stored import Matrix
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

    def compressed(self, point: Point, rung: Rung) -> State:
        """The model after the steps of a rung.

        Raises:
            MethodError: A step cannot be carried out.
        """
        context, state = self.subject.context(self.progress), self.subject.state()
        for step in self.space.steps(point, rung):
            state = carried_out(METHODS[step["method"]].model_validate(step), state, context).state
        broken = [name for name, item in state.model.named_parameters() if not bool(item.isfinite().all())]
        if broken:
            raise MethodError(f"weights are not finite after training: {', '.join(broken[:3])}")
        return state

    def _of_torch(self, point: Point, rung: Rung) -> Outcome:
        """The PyTorch model with its weights rounded as the file's are; the size is computed."""
        state = self.compressed(point, rung)
        model = copy.deepcopy(state.model)
        forms = self._forms(model, point)
        round_in_place(forms)
        examined = self.subject.examine(TorchForward(model, self.subject.device), sliced=True)
        return Outcome(
            drop=self.subject.drop(examined, sliced=True),
            score=examined.score.value,
            weight_bytes=weight_bytes(model, forms, self.space.precision(point)),
            layers_ms=self._layers(state),
            parameters=size.count(state.model)[0],
        )

    def _weight_bytes(self, model: nn.Module, point: Point) -> int:
        """Computed, as in the rungs before, so that files tell what is beside the weights."""
        return weight_bytes(model, self._forms(model, point), self.space.precision(point))

    def _forms(self, model: nn.Module, point: Point) -> dict[str, Matrix]:
        stored = self.space.stored(point)
        return stored_forms(model, stored, self.subject.importances if stored.word == "mixed" else {})

    def _layers(self, state: State) -> float | None:
        """By the table, if latency counts."""
        if not self.space.goals.times_files:
            return None
        return self.table.of_model(state.model, NarrowedStates(self.subject.task, state.structure))

    def _in_full(self, point: Point) -> Outcome:
        """The exported file: its bytes, its latency if that counts, and its metric."""
        state = self.compressed(point, 2)
        timed = self.space.goals.times_files
        options = self.space.export(point)
        written = files.write(self.subject, state, options, timed=timed, target=self.target)
        if self.largest is not None and written.bytes > self.largest and not options.may_be_larger:
            return Outcome(  # with its bytes, from which others of this precision are predicted
                refused=f"the file has {written.bytes:,} bytes, more than the {self.largest:,} of the original",
                bytes=written.bytes,
                weight_bytes=self._weight_bytes(state.model, point),
            )
        if self.target is not None:
            refuse_more(self.space, str(self.space.precision(point)), written.refused)
        return Outcome(
            drop=self.subject.drop(written.examined),
            score=written.examined.score.value,
            bytes=written.bytes,
            weight_bytes=self._weight_bytes(state.model, point),
            latency_ms=written.latency_ms,
            flash_bytes=written.flash_bytes,
            ram_bytes=written.ram_bytes,
            layers_ms=self._layers(state),
            parameters=size.count(state.model)[0],
            unseen=None if written.unseen is None else self.subject.unseen_drop(written.unseen),
            unseen_score=None if written.unseen is None else written.unseen.score.value,
        )
