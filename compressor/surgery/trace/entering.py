"""Follows inputs of the model that may turn out to be states: through masks, copies and a choice of their features.

`keep * h` is still the state h, and so is what a hook of an earlier removal picks of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compressor.surgery.trace.elementwise import KEEPS_ZERO, LIKE, SUMS
from compressor.surgery.trace.state import Entering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.surgery.trace.state import Trace

aten = torch.ops.aten
_COPIES = {aten.clone.default, aten._to_copy.default, *LIKE}
_MASKS = {*(KEEPS_ZERO - SUMS), aten.masked_fill, aten.masked_fill_}


def carry_on(
    trace: Trace, func: Any, args: Sequence[Any], tensors: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Let what an operation makes of an input that may be a state be one as well."""
    held = [(tensor, entry) for tensor in tensors if (entry := _features(trace, tensor)) is not None]
    if not held or len(outputs) != 1 or any(entry.place != held[0][1].place for _, entry in held):
        return
    tensor, entry = held[0]
    positions = entry.positions
    if func is aten.index_select.default:
        if args[1] % tensor.dim() != tensor.dim() - 1:
            return
        positions = positions[args[2].numpy()]
    elif func not in _COPIES:
        others = [part for part in tensors if all(part is not own for own, _ in held)]
        alike = all(not part.dim() or part.size(-1) == 1 or part in trace.constants for part in others)
        if func.overloadpacket not in _MASKS or not alike or outputs[0].size() != tensor.size():
            return
    trace.enter(Entering(entry.place, entry.whole, outputs[0], positions))


def _features(trace: Trace, tensor: Tensor) -> Entering | None:
    """What a tensor holds of an input, if its last axis is that of the input's features."""
    entry = trace.entering(tensor)
    if entry is None or not tensor.dim() or tensor.size(-1) != len(entry.positions):
        return None
    return entry if tensor.stride(-1) == entry.tensor.stride(-1) else None
