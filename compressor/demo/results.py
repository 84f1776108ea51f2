"""What a phone sends back: checked as something that anybody may have sent, and kept in the run's folder."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from compressor.errors import OutputError, UsageError
from compressor.files import read_text, write_whole, writing

if TYPE_CHECKING:
    from pathlib import Path

RESULTS_FILE: Final = "on-phones.json"
MOST_BYTES: Final = 64 * 1024
"""Of one result."""
MOST_RESULTS: Final = 200
"""In one folder."""
_Milliseconds = Annotated[float, Field(gt=0.0, lt=1e7, allow_inf_nan=False)]
_Line = Annotated[str, Field(max_length=300, pattern=r"^[\x20-\x7e]*$")]


class PhoneResult(BaseModel):
    """The timing of one file in one browser."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: _Line
    browser: _Line
    """What it calls itself."""
    largest_difference: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    """From the outputs in the example."""
    calls_per_sample: Annotated[int, Field(ge=1, le=1_000_000)]
    """A sample is the mean of so many calls: the clock of a page is coarse."""
    milliseconds: Annotated[list[_Milliseconds], Field(min_length=1, max_length=500)]
    original_milliseconds: Annotated[list[_Milliseconds], Field(max_length=500)] = []
    """Of the original, interleaved; empty if it was not timed."""
    received: _Line = ""
    """When, in UTC; set here."""

    @property
    def summary(self) -> str:
        """A line for the terminal."""
        line = f"{self.file}: {statistics.median(self.milliseconds):.3g} ms (median)"
        if self.original_milliseconds:
            before = statistics.median(self.original_milliseconds)
            line += f", original {before:.3g} ms: {before / statistics.median(self.milliseconds):.2f}x as fast"
        return f"{line}; largest difference {self.largest_difference:.1e}; {self.browser}"


_ALL: Final = TypeAdapter(list[PhoneResult])


def read(folder: Path) -> list[PhoneResult]:
    """All results in a run's folder; raises `UsageError` if the file is not one of ours."""
    path = folder / RESULTS_FILE
    if not path.exists():
        return []
    try:
        return _ALL.validate_json(read_text(path, UsageError))
    except ValidationError as error:
        raise UsageError(f"{path} holds no results of phones", hint="move it away") from error


def checked(content: bytes, files: set[str]) -> PhoneResult:
    """A result that came over the network.

    Raises:
        ValueError: It is none, or of a file that is not shown.
    """
    result = PhoneResult.model_validate_json(content)
    if result.file not in files:
        raise ValueError("no such file")
    return result.model_copy(update={"received": datetime.now(UTC).isoformat(timespec="seconds")})


def keep(folder: Path, result: PhoneResult) -> None:
    """Add a result to those of the folder, whose file is replaced as a whole.

    Raises:
        OutputError: It cannot be written, or there are too many.
    """
    kept = read(folder)
    if len(kept) >= MOST_RESULTS:
        raise OutputError(f"{folder / RESULTS_FILE} has {MOST_RESULTS} results", hint="move it away to take more")
    every: Any = _ALL.dump_json([*kept, result], indent=1)
    with writing(folder / RESULTS_FILE):
        write_whole(folder / RESULTS_FILE, every + b"\n")
