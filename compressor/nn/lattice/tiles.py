"""Pieces of a matrix that are worked on one after the other, so that what is done with one piece stays in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CPU_ELEMENTS = 1 << 15
"""128 KiB of float32 and 256 KiB of int64; up to here torch also keeps an elementwise operation in one thread, so that
the many short operations of a closure do not wait for each other's threads on a busy machine."""


def row_slices(rows: int, columns: int, device: torch.device) -> list[slice]:
    """Consecutive slices of the rows of a (rows, columns) matrix; one for all of them on an accelerator."""
    step = max(1, _CPU_ELEMENTS // max(columns, 1)) if device.type == "cpu" else max(rows, 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
