"""What every fact of a report is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Fact(BaseModel):
    """A frozen record; unknown keys are refused when a report is read back."""

    # built on first use: `validate` imports this module for its names only
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
