"""The folder of a search: one search at a time, and never at the cost of something else."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.errors import OutputError
from compressor.files import json_object, read_text, write_whole, writing

if TYPE_CHECKING:
    from types import TracebackType

    from compressor.studies.search.goals import Goals

BEST: Final = "best"
"""Folder of the run that made the chosen file."""
FRONTIER: Final = "frontier"
"""Folder of the frontier's recipes."""
REPORT: Final = "report"
_GOALS: Final = "goals.json"


class SearchFolder:
    """`with SearchFolder(out, goals, task) as folder:` the folder is this search's alone until the block ends."""

    def __init__(self, path: Path, goals: Goals, task: str) -> None:
        """For these goals and this task.

        Raises:
            OutputError: It holds something else, or a search for other goals.
        """
        self.path = path
        self.facts = {"goals": goals.key(), "task": str(Path(task).name), "name": goals.name}

    def __enter__(self) -> SearchFolder:
        """Make the folder and lock it."""
        with writing(self.path):
            self._refuse_other()
            self.path.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise OutputError(
                f"another search is at work in {self.path}",
                hint="give another --out; several workers share a study with --storage, or with --jobs",
            ) from error
        write_whole(self.path / _GOALS, (json.dumps(self.facts, indent=2) + "\n").encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let others in."""
        os.close(self._handle)

    def _refuse_other(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise OutputError(f"{self.path} is a file", hint="give a folder with --out")
        inside = sorted(path.name for path in self.path.iterdir())
        known = self._read()
        if known is None and inside:
            raise OutputError(
                f"{self.path} is not empty and holds no search ({', '.join(inside[:3])} ...)",
                hint="choose another --out",
            )
        if known is not None and known != self.facts:
            what = "another task" if known.get("task") != self.facts["task"] else "other goals"
            raise OutputError(
                f"{self.path} holds a search for {what}",
                hint="repeat its goals to go on with it (only time and trials may change), or choose another --out",
            )

    def _read(self) -> dict[str, str] | None:
        goals = self.path / _GOALS
        return json_object(read_text(goals, OutputError)) if goals.is_file() else None
