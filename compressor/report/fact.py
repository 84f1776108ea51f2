"""What every fact of a report is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=0, lt=1 << 60)]
"""Bytes, or a number of things, that a view may divide and write."""


def _with_method(step: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(step.get("method"), str):
        raise ValueError("a step must have a `method`")
    return step


Step = Annotated[dict[str, Any], AfterValidator(_with_method)]
"""A step of a recipe, as a view shows it; whether the method takes its settings is for a recipe to say."""


class Fact(BaseModel):
    """A frozen record; unknown keys are refused when a report is read back."""

    # built on first use: `validate` imports this module for its names only
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
