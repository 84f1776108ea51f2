"""Bytes of a file that was not written: its weights are computed, what else is in it is learned from files that were.

A file is weights and a graph. Weights follow from shapes and precision alone; the graph (nodes, names, scales' nodes)
hardly depends on how many units are left, so it is taken from the files of the same precision that were written.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressor.studies.search.on_board import OnBoard
    from compressor.studies.search.records import Record


@dataclass
class Graphs:
    """What files hold beside weights and take beside their layers, by the precision of the weights."""

    original: int
    """Bytes of the original's file beside its weights, in float32."""
    original_ms: float = 0.0
    """Milliseconds of the original's file beside its layers."""
    board: OnBoard | None = None
    """What the original takes on a board, if the file is for one."""
    seen: dict[str | None, list[int]] = field(default_factory=dict)
    times: dict[str | None, list[float]] = field(default_factory=dict)

    def with_files(self, records: list[Record]) -> Graphs:
        """The same, with what a study learned from the files that it has written."""
        graphs = Graphs(self.original, self.original_ms, None if self.board is None else self.board.with_files(records))
        for record in records:
            outcome = record.outcome
            if record.rung == 2 and outcome is not None and outcome.bytes and outcome.weight_bytes is not None:
                graphs.seen.setdefault(record.precision, []).append(outcome.bytes - outcome.weight_bytes)
                if outcome.latency_ms and outcome.layers_ms is not None:
                    expected = outcome.layers_ms + self.original_ms
                    graphs.times.setdefault(record.precision, []).append(outcome.latency_ms / max(expected, 1e-9))
        return graphs

    def bytes(self, precision: str | None) -> int:
        """The middle of those that were seen, or the original's."""
        seen = self.seen.get(precision)
        return round(statistics.median(seen)) if seen else self.original

    def latency(self, layers_ms: float, precision: str | None) -> float:
        """Milliseconds of a file whose layers take so much; other precisions are faster or slower by a factor."""
        seen = self.times.get(precision)
        return (layers_ms + self.original_ms) * (statistics.median(seen) if seen else 1.0)
