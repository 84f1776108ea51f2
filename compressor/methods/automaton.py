"""`automaton`: a trained recurrent model over symbols becomes a table of integers.

Source: Wang and Niepert, arXiv 1901.08817: a recurrent network over symbols uses few states, and clusters of them are
those of an automaton. Here the states of the trained network are clustered; nothing is trained.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State, StepResult

if TYPE_CHECKING:
    from torch import nn

    from compressor.streaming.automaton.reading import Reader, Reading
    from compressor.task.contract import Task

_HELD_OUT = 4
"""One string in so many is held out."""


class Automaton(Method):
    """Turn a recurrent model over a small alphabet into a finite automaton: one look-up for each symbol, no arithmetic.

    The states of the model on training strings are clustered, apart for each decision; a transition is what most
    strings do; states that decide alike for ever are merged. The number of clusters is chosen by the agreement with the
    model on held-out strings. The whole model is replaced, so this is the last step of a recipe.
    """

    summary: ClassVar[str] = "turn a recurrent model over symbols into a finite automaton (a table, no arithmetic)"

    may_stream: ClassVar[bool] = True
    is_last: ClassVar[bool] = True

    method: Literal["automaton"] = "automaton"
    """The recipe word."""

    clusters: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Clusters of hidden states; several numbers up to `max_clusters` are tried if left out. The automaton has as many
    states or fewer."""

    max_clusters: Annotated[int, Field(ge=2, le=256)] = 64
    """Largest number of clusters that is tried."""

    min_agreement: Annotated[float, Field(gt=0.0, le=1.0)] = 0.99
    """Least share of the model's decisions (the largest score, or the sign of a single one) on held-out strings that
    the automaton has to make too; otherwise the step is refused."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 32
    """How many training batches are read; a quarter of their strings is held out."""

    def check_task(self, model: nn.Module, task: Task) -> None:
        """Refuse inputs that are not symbols, and models without states of fixed size."""
        self._reader(copy.deepcopy(model).cpu().eval(), task)

    def apply(self, state: State, context: Context) -> StepResult:
        """Read, cluster and replace."""
        import torch

        from compressor.nn.automaton import Automaton as Table
        from compressor.streaming.automaton.extraction import COUNTS, STARTS, extract
        from compressor.surgery.changes import change, size_of
        from compressor.surgery.rebuild import automaton_record

        model = copy.deepcopy(state.model).cpu().eval()
        reader = self._reader(model, context.task)
        training, held_out = self._readings(reader, context)
        reader.check(model, held_out[0])
        tried = [count for count in COUNTS if count <= self.max_clusters]
        counts = tried if self.clusters is None else [self.clusters]
        generator = torch.Generator().manual_seed(context.generator.initial_seed())
        with context.progress.bar("clustering states", STARTS * len(counts)) as bar:
            found = extract(reader, training, held_out, counts, generator, bar.advance)
        if found.agreement < self.min_agreement:
            raise MethodError(
                f"the best automaton, of {len(found.machine.table)} states, decides as the model does in "
                f"{found.agreement:.2%} of the held-out cases, below `min_agreement: {self.min_agreement:g}`",
                hint="raise `max_clusters` or `calibration_batches`; a model that counts or remembers long texts is no "
                "finite automaton",
            )
        classes, table = found.machine.classes()
        automaton = Table.from_tables(classes, table.tolist(), found.machine.outputs, each=reader.each)
        size = size_of(state.model.parameters())
        states = len(found.machine.table)
        note = f"{states} states, {table.shape[1]} classes of {reader.symbols} symbols"
        home = next(state.model.parameters()).device
        return StepResult(
            State(automaton.to(home), {}, (automaton_record(automaton),)),
            (change("(model)", "replaced", size, size_of(automaton.parameters()), note=note),),
            notes=_notes(found.unseen, reader.symbols),
            facts={
                "states": float(states),
                "clusters of hidden states": float(found.clusters),
                "classes of symbols": float(table.shape[1]),
                "agreement with the model on held-out strings": found.agreement,
                "bytes of the table": float(states * table.shape[1] * _width(states)),
            },
        )

    @staticmethod
    def _reader(model: nn.Module, task: Task) -> Reader:
        from compressor.streaming.automaton.reading import Reader

        longer = min(max(task.length, task.min_length + 1), task.max_length)
        return Reader(model, task.example, (min(task.min_length + 1, longer), longer))

    def _readings(self, reader: Reader, context: Context) -> tuple[list[Reading], list[Reading]]:
        """What the model does on different strings of the batches, and on those that are held out."""
        batches = context.first_batches(self.calibration_batches, hint="let `Task.batches` give at least one")
        known: set[tuple[int, ...]] = set()
        training: list[Reading] = []
        held_out: list[Reading] = []
        for inputs, _ in batches:
            strings = inputs[0].cpu()
            chosen: tuple[list[int], list[int]] = [], []
            for place, row in enumerate(map(tuple, strings.tolist())):
                if row not in known:
                    known.add(row)
                    chosen[len(known) % _HELD_OUT == 0].append(place)
            for places, readings in zip(chosen, (training, held_out), strict=True):
                if places:
                    readings.append(reader.read(strings[places]))
        if not training or not held_out:
            raise MethodError(
                "the training batches hold too few different strings",
                hint="raise `calibration_batches`, or give larger batches",
            )
        return training, held_out


def _notes(unseen: int, symbols: int) -> tuple[str, ...]:
    decisions = (
        "The automaton makes the model's decisions; its scores are means over the states that it merged, so losses and "
        "probabilities differ."
    )
    if not unseen:
        return (decisions,)
    return (
        decisions,
        f"{unseen} of {symbols} symbols occur in no string that was read; they act as one, as most of them do in the "
        "model.",
    )


def _width(states: int) -> int:
    """Bytes of a state's number."""
    return 1 if states <= 1 << 8 else 2
