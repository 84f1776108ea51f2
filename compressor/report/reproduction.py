"""What came out when a finished run was repeated."""

from __future__ import annotations

from typing import Literal

from compressor.report.fact import Fact

Outcome = Literal["same", "within", "other"]
"""The same to the last digit (or byte); within the 95 % interval; or neither."""


class RepeatedNumber(Fact):
    """A number of a run and of its repetition."""

    file: str
    name: str
    """`metric` or `ratio` (of latencies, original / compressed)."""
    before: float
    after: float
    outcome: Outcome
    """Of a ratio, which is never the same: `within` if both intervals have a part in common."""


class RepeatedFile(Fact):
    """A file of a run and of its repetition."""

    name: str
    same: bool


class Reproduction(Fact):
    """The comparison of a run with its repetition."""

    environment: tuple[str, ...]
    """What differs in machine, versions, code, weights and data, one line each."""
    files: tuple[RepeatedFile, ...]
    numbers: tuple[RepeatedNumber, ...]
    differing: tuple[str, ...]
    """Other facts of the report that differ, one line each; times and memory are not compared."""

    @property
    def reproduced(self) -> bool:
        """Whether every file has the same bytes, and every number is the same or within its interval."""
        return all(file.same for file in self.files) and all(number.outcome != "other" for number in self.numbers)
