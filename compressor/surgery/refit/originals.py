"""What the layers of the original are given on the calibration batches, which a refit asks for again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compressor.surgery.refit.calibration import Call, calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from compressor.surgery.refit.calibration import Batches

_KEPT: Final = 256 * 2**20
"""Bytes of calls that are kept at the same time."""


class OriginalCalls:
    """The calls of some modules in each batch, kept as far as there is room and computed again otherwise.

    Late layers are kept first: to see what they are given takes most of the model.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], batches: Batches, room: int = _KEPT) -> None:
        """Run the model once.

        Args:
            model: The original, in evaluation mode.
            names: Of the modules.
            batches: Inputs of the model.
            room: Bytes that may be kept.
        """
        self._model, self._batches, self._room = model, batches, room
        self._kept: dict[str, dict[int, list[tuple[str, Call]]]] = {}
        self.counts: dict[str, list[int]] = {}
        """How often each module is called in each batch, in the order of the first calls; not called: left out."""
        for index, batch in enumerate(batches):
            seen = calls(model, names, batch)
            for name, _ in seen:
                self.counts.setdefault(name, [0] * len(batches))[index] += 1
            self._keep(index, seen)

    def _keep(self, index: int, seen: Sequence[tuple[str, Call]]) -> None:
        """What there is room for, such that it lasts for the batches to come if they are as large."""
        room = self._room // (len(self._batches) - index)
        for name in reversed(self.counts):
            own = [one for one in seen if one[0] == name]
            size = sum(_bytes(call) for _, call in own)
            if own and size <= room:
                room -= size
                self._room -= size
                self._kept.setdefault(name, {})[index] = own

    def of(self, name: str, index: int) -> list[tuple[str, Call]]:
        """The calls of a module in a batch, in order."""
        kept = self._kept.get(name, {}).get(index)
        return kept or calls(self._model, [name], self._batches[index], most=self.counts[name][index])

    def forget(self, name: str) -> None:
        """A module that is not asked for any more."""
        self._kept.pop(name, None)


def _bytes(call: Call) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(dict(call.arguments)) if isinstance(leaf, Tensor))
