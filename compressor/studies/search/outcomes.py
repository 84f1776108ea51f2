"""What a rung found out about a point."""

from __future__ import annotations

import math
from typing import Any

from compressor.report import Drop
from compressor.report.fact import Fact


class Outcome(Fact):
    """A point at a rung. Numbers are None if the recipe could not be carried out, or were not measured."""

    drop: Drop | None = None
    """Of the metric that the search looks at, compared with the original."""
    outputs_error: float | None = None
    """Squared relative error of the PyTorch model's outputs on training batches, its weights rounded to the nearest."""
    score: float | None = None
    bytes: int | None = None
    """Of the file; None in rungs without an export."""
    weight_bytes: int | None = None
    """Computed: what the weights take of a file."""
    latency_ms: float | None = None
    """Median of one call of the file; None in rungs without an export."""
    flash_bytes: int | None = None
    """Of the program on an emulated board; None without one."""
    ram_bytes: int | None = None
    """That it takes there."""
    layers_ms: float | None = None
    """What the layers of the model take, each alone, by the table of layer kinds and sizes."""
    parameters: int | None = None
    unseen: Drop | None = None
    """By `evaluate`, if the search looks at `validate`; it decides nothing until the end."""
    unseen_score: float | None = None
    refused: str | None = None
    """Why the recipe cannot be carried out."""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether there is nothing to compare."""
        return self.drop is None or not math.isfinite(self.drop.value)

    @property
    def final_drop(self) -> Drop | None:
        """By `evaluate`, if the point was tried in full; what the search looks at if that is all there is."""
        return self.unseen or self.drop

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json", exclude_none=True)
