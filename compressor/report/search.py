"""What a search tried, and what it chose."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.report.document import Document
from compressor.report.environment import Environment
from compressor.report.fact import Fact, Size, Step
from compressor.report.scores import Drop, Score

GoalName = Literal["drop", "bytes", "latency", "flash", "ram"]


class SearchPoint(Fact):
    """A recipe that was tried."""

    number: int
    """By which the study knows it."""
    rung: Literal[0, 1, 2]
    """How far it came: 0 without training, 1 after a short one, 2 in full, on the exported file."""
    origin: str
    """Where it came from: `seed`, `guided` or `random`."""
    drop: Drop | None = None
    """Of the metric, by the function that the search looks at, at this rung."""
    expected_drop: float | None = None
    """In full, by what retraining gave back elsewhere."""
    bytes: Size | None = None
    """Of the file; computed below rung 2."""
    latency_ms: float | None = None
    """Of the file; None if it was not timed."""
    expected_latency_ms: float | None = None
    """The same, or else what is predicted, if latency counts."""
    flash_bytes: Size | None = None
    """On an emulated board, if the file is exported for one."""
    ram_bytes: Size | None = None
    parameters: int | None = None
    unseen: Drop | None = None
    """By `evaluate`, if the search looked at `validate`."""
    seconds: float = 0.0
    steps: tuple[Step, ...] = ()
    """Of the recipe in full."""
    precision: str | None = None
    on_frontier: bool = False
    """No other beats it by `evaluate`, in bytes and in latency if that counts; or it was chosen."""
    verdict: str = ""
    """Why it was chosen, or why not."""


class GoalCost(Fact):
    """What one goal costs: the best that is possible in it while all other goals are met."""

    name: GoalName
    goal: float
    reached: float | None
    """The best value among the points that meet all other goals; None if none does."""
    number: int | None = None
    """The point that reaches it."""


class SearchReport(Document):
    """`report.json` of a search."""

    NAME: ClassVar[str] = "a report of a search"
    AGAIN: ClassVar[str] = "give the command again"

    kind: Literal["search"] = "search"
    name: str
    task: str
    remark: str = ""
    goals: dict[str, Any]
    objective: Literal["bytes", "latency", "drop"]
    function: Literal["validate", "evaluate"]
    """Of the task, by which the search measured."""
    original: Score
    original_bytes: Annotated[Size, Field(ge=1)]
    """Of the original's file in float32."""
    original_latency_ms: float | None = None
    noise: float = 0.0
    """By how much the metric of the original differs from call to call."""
    space: tuple[str, ...]
    """What could be tried."""
    left_out: tuple[str, ...] = ()
    """What could not, and why."""
    points: tuple[SearchPoint, ...]
    chosen: int | None = None
    """The point that is in `best/`; None if no point meets all goals."""
    best_bytes: Annotated[Size, Field(ge=1)] | None = None
    """Of the file in `best/`."""
    best_drop: Drop | None = None
    """Of the file in `best/`, by `evaluate`."""
    passed_over: tuple[int, ...] = ()
    """Points that would have been better, and missed a goal on the data that the search had not seen."""
    costs: tuple[GoalCost, ...] = ()
    evaluation_seconds: float = 0.0
    """That the metric of the original takes."""
    seconds: float
    """Of all workers, restarts included."""
    trials: dict[str, int] = Field(default_factory=dict)
    """Rung in words -> trials."""
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    environment: Environment

    @model_validator(mode="after")
    def _of_one_search(self) -> SearchReport:
        known = {point.number for point in self.points}
        named = [self.chosen, *self.passed_over, *(cost.number for cost in self.costs)]
        if not known.issuperset(number for number in named if number is not None):
            raise ValueError("`chosen`, `passed_over` and `costs` must name numbers of `points`")
        return self

    def final_loss(self, point: SearchPoint) -> Drop | None:
        """By `evaluate`; None if it was not measured by it."""
        return point.drop if self.function == "evaluate" and point.rung == 2 else point.unseen

    @property
    def frontier(self) -> tuple[SearchPoint, ...]:
        """The points that no other beats, and the chosen one, the smallest file first."""
        return tuple(sorted((point for point in self.points if point.on_frontier), key=lambda point: point.bytes or 0))

    def point(self, number: int) -> SearchPoint:
        """The point of that number."""
        return next(point for point in self.points if point.number == number)
