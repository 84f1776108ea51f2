"""What is studied, and the file of results."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compressor.report import Fact

Kind = Literal["ws", "ba"]
KINDS: Final[dict[str, str]] = {"ws": "Watts–Strogatz", "ba": "Barabási–Albert"}
SMALLEST_NODES: Final = 10


class Study(BaseModel):
    """What is studied: everything on which the rows depend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    """`FILE.py` or `FILE.py:NAME`."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("ws", "ba")
    count: Annotated[int, Field(ge=1)] = 30
    """Graphs of each kind."""
    smallest: Annotated[int, Field(ge=SMALLEST_NODES)] = 10
    """Least number of nodes n. A Watts–Strogatz graph has k = floor(n / 5) and p = 1, a Barabási–Albert graph
    m = floor(n / 10), so n below 10 gives none."""
    largest: Annotated[int, Field(le=1024)] = 50
    """Largest number of nodes."""
    epochs: Annotated[int, Field(ge=1)] = 15
    target: str | None = None
    """Of `random_graph`: the recurrent layer that is replaced."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0

    @model_validator(mode="after")
    def _sizes_are_a_range(self) -> Study:
        if self.largest < self.smallest:
            raise ValueError(f"the largest number of nodes, {self.largest}, is below the smallest, {self.smallest}")
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError("a kind is there twice")
        return self


class Row(Fact):
    """One graph and what the network on it came to."""

    kind: Kind
    index: int
    """0..count - 1."""
    graph: dict[str, Any]
    """Record of the `LayeredGraph`."""
    properties: dict[str, float]
    parameters: int
    """Of the whole model."""
    metric: float | None
    """Of the task's `evaluate` after training; None if training failed."""
    seconds: float
    note: str = ""
    """Why training failed."""


class Results(Fact):
    """The results file."""

    schema_version: Literal[1] = 1
    study: Study
    metric: str
    higher_is_better: bool
    rows: tuple[Row, ...] = ()
    """In the order of the kinds and then of the indices; those of graphs that are not done yet are missing."""

    def metrics(self, kind: Kind | None = None) -> list[Row]:
        """The rows that have a metric, of one kind or of all."""
        return [row for row in self.rows if row.metric is not None and kind in (None, row.kind)]
