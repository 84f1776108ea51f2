"""The task of a compressed model whose states among the inputs have fewer units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.task.guard import GuardedTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch
    from torch import Tensor

    from compressor.task.contract import Evaluation, Forward, Inputs


class NarrowedTask(GuardedTask):
    """The task of a compressed model whose states among the inputs have fewer units than the user's code makes."""

    def __init__(self, task: GuardedTask, structure: Iterable[Mapping[str, Any]]) -> None:
        """`structure` holds the records of the compressed model; those of `edges` count here."""
        from compressor.surgery.trace.edges import KIND, Edges

        super().__init__(task.task, task.file)
        self._edges = [Edges.from_record(record) for record in structure if record.get("kind") == KIND]

    def example(self, batch: int, length: int) -> Inputs:
        """The task's example, its states cut to the units that are left."""
        return self._narrow(super().example(batch, length))

    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `evaluate`; states of the old size are cut on their way into `forward`."""
        return super().evaluate(lambda *inputs: forward(*self._narrow(inputs)))

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `validate`, in the same way."""
        return super().validate(lambda *inputs: forward(*self._narrow(inputs)))

    def batches(self, generator: torch.Generator) -> Iterable[tuple[Inputs, Any]]:
        """The task's batches as the compressed model takes them."""
        return ((self._narrow(inputs), target) for inputs, target in super().batches(generator))

    def _narrow(self, inputs: Inputs) -> Inputs:
        for edges in self._edges:
            inputs = edges.narrow(inputs)
        return inputs
