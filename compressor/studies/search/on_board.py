"""What a program takes on a microcontroller before it was written: learned from the programs that were.

Flash is the file and what is linked to it, which hardly changes. RAM is mostly states and work area, which grow with
the units, so roughly with the root of the parameters.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compressor.studies.search.outcomes import Outcome
    from compressor.studies.search.records import Record
    from compressor.studies.search.study_facts import OriginalFile


@dataclass(frozen=True)
class OnBoard:
    """Two numbers that are learned."""

    linked: float
    """Bytes of flash beside the file."""
    ram: float
    """Bytes of RAM for each root of the parameters."""

    @classmethod
    def of(cls, original: OriginalFile) -> OnBoard | None:
        """From the original's program; None if it was not run on a board."""
        if original.flash_bytes is None or original.ram_bytes is None or not original.parameters:
            return None
        return cls(original.flash_bytes - original.bytes, original.ram_bytes / math.sqrt(original.parameters))

    def with_files(self, records: Iterable[Record]) -> OnBoard:
        """The middle of the programs that were run, if there are any."""
        run = [one for record in records if (one := record.outcome) is not None and one.flash_bytes and one.bytes]
        if not run:
            return self
        flash = statistics.median(one.flash_bytes - one.bytes for one in run if one.flash_bytes and one.bytes)
        ram = [one.ram_bytes / math.sqrt(one.parameters) for one in run if one.ram_bytes and one.parameters]
        return replace(self, linked=flash, ram=statistics.median(ram) if ram else self.ram)

    def taken(self, outcome: Outcome, size: float) -> tuple[float, float]:
        """Flash and RAM of a result: measured, or expected of a file of `size` bytes."""
        if outcome.flash_bytes is not None and outcome.ram_bytes is not None:
            return float(outcome.flash_bytes), float(outcome.ram_bytes)
        return size + self.linked, self.ram * math.sqrt(outcome.parameters or 1)
