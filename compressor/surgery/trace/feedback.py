"""Finds recurrent cells that are written in Python: parameters that take in what they made at an earlier step.

Beside each storage of activations stands which parameters it was computed from, and in which of their uses. A parameter
that is applied to something computed from itself is in a loop, and what it is applied to is a state. So is what an
operation brings together from several uses of one parameter and from a later one, as with a gate that does not see the
state. What PyTorch's own recurrent layers and cells give begins anew: they are known already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.surgery.trace.atoms import Ids

Uses = dict[str, tuple[int, int]]
"""Parameter -> the numbers of its first and its last use that something was computed from."""


class Feedback:
    """What each activation was computed from, and the states that this tells of."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.states: dict[str, list[Ids]] = {}
        """Parameter in a loop -> the atoms of the states that it takes in."""
        self._made_of: dict[int, Uses] = {}
        self.counts: dict[str, int] = {}
        """Parameter -> how often it was used."""

    def follow(
        self,
        tensors: Sequence[Tensor],
        names: Sequence[str | None],
        labels: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
    ) -> None:
        """Take in one operation.

        Args:
            tensors: Its arguments.
            names: For each of them the parameter that it is a view of; None for an activation.
            labels: For each of them its labels before the operation.
            outputs: What it gave.
        """
        activations = [
            (self._made_of.get(tensor.untyped_storage().data_ptr(), {}), label)
            for tensor, name, label in zip(tensors, names, labels, strict=True)
            if name is None
        ]
        parameters = dict.fromkeys(name for name in names if name is not None)
        for made_of, label in activations:
            for name in parameters:
                if name in made_of:
                    self._add(name, label)
        self._compare(activations)
        made_of = _united([uses for uses, _ in activations])
        for name in parameters:
            count = self.counts[name] = self.counts.get(name, 0) + 1
            made_of[name] = (made_of.get(name, (count, count))[0], count)
        for output in outputs:
            self._made_of[output.untyped_storage().data_ptr()] = made_of

    def _compare(self, activations: Sequence[tuple[Uses, Tensor | None]]) -> None:
        """A state made by several uses of a parameter that meets what one later use made."""
        for old, label in activations:
            for new, other in activations:
                if label is None or other is None or old is new:
                    continue
                for name, (first, last) in old.items():
                    if first < last < new.get(name, (0, 0))[0]:
                        self._add(name, label)

    def _add(self, name: str, label: Tensor | None) -> None:
        if label is not None:
            self.states.setdefault(name, []).append(np.unique(label.numpy()))


def _united(parts: Sequence[Uses]) -> Uses:
    united: Uses = {}
    for part in parts:
        for name, (first, last) in part.items():
            known = united.get(name, (first, last))
            united[name] = (min(first, known[0]), max(last, known[1]))
    return united
