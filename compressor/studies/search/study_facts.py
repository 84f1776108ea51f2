"""What a study knows beside its trials, read as something that anybody may have written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compressor.errors import UsageError
from compressor.report import Fingerprints
from compressor.report.fact import Fact, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

_Time = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class OriginalFile(Fact):
    """The original's file, as it was measured when the study began."""

    bytes: Size
    weight_bytes: Size
    """Computed: what the weights take of it."""
    latency_ms: _Time | None
    flash_bytes: Size | None = None
    ram_bytes: Size | None = None
    parameters: Size | None = None
    seconds: _Time
    """That writing and measuring it took."""


class StudyGoals(Fact):
    """What a study was asked for."""

    key: str


class Reach(Fact):
    """What a target does not take of the files of a space."""

    refused: dict[str, tuple[str, ...]]
    """Precision -> kinds of nodes that are not taken, which no file may add to."""
    rounding: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Precision -> options of the export's `rounding`."""
    parts: tuple[Size, ...] = ()
    """Places of those parts of the space that are tried."""
    left_out: tuple[str, ...] = ()


class Decisions(BaseModel):
    """What was decided when a study began, so that it goes on in the same space; filled in while that is built."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    numbers: dict[str, Annotated[int, Field(ge=0, le=1 << 40)]] = Field(default_factory=dict)
    """By the speed of the machine: whether maps are measured, and batches of the longest retraining."""
    reach: Reach | None = None
    """If the goals have a target."""
    first: tuple[dict[str, float | int | str], ...] | None = None
    """If they have a start: its points in this space."""


class StudyFacts(Fact):
    """Facts about the whole study; None or empty: it has not begun."""

    decided: Decisions = Field(default_factory=Decisions)
    original: OriginalFile | None = None
    fingerprints: Fingerprints | None = None
    goals: StudyGoals | None = None

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> StudyFacts:
        """Read what a storage has noted; raises `UsageError` if a study of this tool does not note it."""
        try:
            facts = cls.model_validate_json(json.dumps(dict(noted)))
        except (ValidationError, ValueError, RecursionError) as error:
            raise damaged_study("what it notes of the whole search") from error
        if facts.goals is not None and (facts.original is None or facts.fingerprints is None):
            raise damaged_study("what it notes of the whole search")
        return facts


def damaged_study(what: str) -> UsageError:
    """Of a study that no search of this tool has written."""
    return UsageError(
        f"the study is damaged: {what} cannot be read",
        hint="choose another --out, or another --name in a storage that several share",
    )
