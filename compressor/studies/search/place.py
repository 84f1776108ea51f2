"""Where a search works: task, folder, storage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from compressor.task.spec import split_spec

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
    jobs: int = 1
    """Workers that this call starts."""
    ray: str | None = None
    """Address of the Ray cluster on which they work; processes of this machine if it is left out."""

    @property
    def is_shared(self) -> bool:
        """Whether several workers may be at the study at the same time."""
        return self.storage is not None or self.jobs > 1 or self.ray is not None

    @property
    def url(self) -> str:
        """Of the storage."""
        return self.storage or f"sqlite:///{self.out / STUDY_FILE}"

    def everywhere(self) -> Place:
        """The same with paths that mean the same in another working directory."""
        file, name = split_spec(self.task)
        task = f"{Path(file).resolve()}:{name}" if name else str(Path(file).resolve())
        return replace(self, task=task, out=self.out.resolve())
