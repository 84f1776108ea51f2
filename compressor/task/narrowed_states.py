"""The task of a compressed model whose states among the inputs have fewer units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.surgery.trace.edges import KIND, Edges, narrowed
from compressor.task.view import TaskView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from compressor.task.contract import Inputs, Task


class NarrowedStates(TaskView):
    """States of the size that the user's code makes are cut to the units that are left."""

    def __init__(self, task: Task, structure: Iterable[Mapping[str, Any]]) -> None:
        """`structure` holds the records of the compressed model; those of `edges` count here."""
        super().__init__(task)
        edges = [Edges.from_record(record) for record in structure if record.get("kind") == KIND]
        self._edges = [own.carried for own in edges if not own.module]  # modules cut what they are given themselves

    def adapt(self, inputs: Inputs) -> Inputs:
        """The inputs with smaller states."""
        return narrowed(self._edges, inputs)
