"""Steps that take something away by a ratio, and may be asked to take less of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from compressor.methods.base import Method


class StepLimits(BaseModel):
    """What a step may cost, and what happens if it costs more."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric_drop: Annotated[float, Field(ge=0.0)]
    """Largest loss of the metric right after the step, compared with the original, in the metric's own unit; by the
    task's `validate` if it has one. Retraining that follows is not waited for."""

    on_miss: Literal["report", "backtrack"] = "report"
    """`report` notes it and goes on; `backtrack` tries the step again, milder, by bisection on its ratios."""

    tries: Annotated[int, Field(ge=1, le=20)] = 5
    """With `on_miss: backtrack`: how often the step is tried again at most."""


class RemovalMethod(Method):
    """A method whose options say how much goes."""

    limits: StepLimits | None = None
    """What the step may cost: `{metric_drop: 0.02, on_miss: backtrack}` tries it again milder if it costs more."""

    @abstractmethod
    def milder(self, part: float) -> Self:
        """The same step that takes only a part, 0 to 1, of what it was asked to take."""
