"""Where a search works: task, folder, storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

STUDY_FILE: Final = "study.db"


@dataclass(frozen=True)
class Place:
    """Where a search works."""

    task: str
    """`FILE.py` or `FILE.py:NAME`."""
    out: Path
    storage: str | None = None
    """Address of a storage that several workers share; a file in `out` if it is left out."""
    device: str = "auto"
    threads: int = 1

    @property
    def url(self) -> str:
        """Of the storage."""
        return self.storage or f"sqlite:///{self.out / STUDY_FILE}"
