"""What every unrolled loop does with the results of its positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from compressor.onnx_graphs.builder import Builder


def stacked(do: Builder, rows: Sequence[ir.Value], axis: int = 0) -> ir.Value:
    """The rows side by side on a new axis."""
    return joined(do, [do("Unsqueeze", [row, do.integers(axis)]) for row in rows], axis)


def joined(do: Builder, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    """The parts one behind the other on an axis."""
    if len(parts) == 1:
        return parts[0]
    return do("Concat", parts, axis=axis)
