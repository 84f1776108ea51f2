"""What a teacher answered to the batches of earlier trainings, for a search that trains many students on the same ones.

A smaller student costs less than its teacher, whose answers never change: most of the time of a retraining goes into
what was computed before. Trainings with one seed draw the same batches in the same order, so the first ones are kept
and nothing is thrown away.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST: Final = 256 * 2**20
"""Bytes that are kept."""


@dataclass
class Remembered:
    """Outputs of one model by the bytes of its inputs, on the CPU."""

    most: int = _MOST
    """Bytes of outputs after which no more are kept."""
    _known: dict[bytes, Tensor] = field(default_factory=dict)
    _bytes: int = 0

    def answer(self, inputs: Sequence[Tensor], compute: Callable[[], Any]) -> Any:
        """What `compute` gives for `inputs`, or gave for the same numbers before.

        Args:
            inputs: Of the model; on another device than the CPU nothing is kept, since looking at them takes longer.
            compute: Calls the model.
        """
        if any(part.device.type != "cpu" for part in inputs):
            return compute()
        key = _key(inputs)
        if key in self._known:
            return self._known[key]
        outputs = compute()
        if isinstance(outputs, Tensor) and outputs.nbytes < outputs.untyped_storage().nbytes():
            outputs = outputs.clone()  # of a view, such as the last position, all would be kept
        if isinstance(outputs, Tensor) and self._bytes + outputs.nbytes <= self.most:
            self._bytes += outputs.nbytes
            self._known[key] = outputs
        return outputs


def _key(inputs: Sequence[Tensor]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in inputs:
        digest.update(repr((part.dtype, tuple(part.shape))).encode())
        digest.update(part.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)  # NumPy has no bfloat16
    return digest.digest()
