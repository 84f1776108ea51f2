"""Exported originals, kept between runs: the second recipe for a model does not export the same original again.

An entry is the part of a run's journal that the export finished, and its files. Its key is everything that they follow
from: fingerprints of weights, code, inputs and versions, the conditions of the run, the export's options and seed, and
the state of the random generators before it. So a run that takes it ends with the bytes of one that does not. The
metric is not kept: what `evaluate` reads cannot be known for certain, and a wrong original would make every drop wrong.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.errors import OutputError
from compressor.files import cache_folder, sha256
from compressor.files.staged import remove_all
from compressor.pipeline.fingerprints import digest
from compressor.pipeline.loaded_code import is_of_user, loaded_files, site_folders, tool_files
from compressor.task.random_state import random_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from compressor.pipeline.journal import Journal
    from compressor.report import Conditions

MOST_ENTRIES: Final = 20
"""The one that was used longest ago goes first."""
MOST_BYTES: Final = 1 << 29
"""Of an entry; larger files are exported again."""
_PART: Final = "part.safetensors"


@dataclass(frozen=True)
class KeptOriginals:
    """The exported originals of one model under the conditions of one run."""

    conditions: Conditions
    seed: int
    device: torch.device

    def entry(self, *facts: str) -> Path:
        """The folder of the export that these facts describe, before anything of it is drawn at random."""
        tensors, others = random_state(self.device)
        drawn = [sorted((name, value.tolist()) for name, value in tensors.items()), others]
        given = self.conditions.model_dump(mode="json")
        return cache_folder() / "originals" / digest(given, _code_elsewhere(), self.seed, drawn, facts)

    def take(self, entry: Path, name: str, journal: Journal) -> bool:
        """Put a kept export into a journal under its name; whether there was one that is whole."""
        try:
            if not journal.adopt(name, entry / _PART):
                return False
        except (OutputError, OSError):  # it may not be read, or another process has just removed it
            return False
        with contextlib.suppress(OSError):  # a cache that is read only
            os.utime(entry)
        return True

    def keep(self, entry: Path, name: str, journal: Journal, files: Iterable[Path]) -> None:
        """Keep an export that a journal holds under its name, as there was none to take; if it cannot be, no matter."""
        own = [*files]
        try:
            if sum(path.stat().st_size for path in own) > MOST_BYTES:
                return
            entry.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=".", dir=entry.parent))
            try:
                for path in own:
                    shutil.copyfile(path, made / path.name)
                shutil.copyfile(journal.file_of(name), made / _PART)
                remove_all(entry)  # it was not whole
                made.rename(entry)
            finally:
                shutil.rmtree(made, ignore_errors=True)
            _forget_oldest(entry.parent)
        except OSError:
            return


def _forget_oldest(folder: Path) -> None:
    entries = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: path.stat().st_mtime)
    for path in entries[:-MOST_ENTRIES]:
        remove_all(path)


def _code_elsewhere() -> list[list[str]]:
    """Code outside of the task's folder: that of this tool, what is installed, and loaded files of the user's."""
    found = [[path.name] for folder in site_folders() for path in folder.glob("*.dist-info")]
    found += map(list, tool_files())
    found += [[str(file), sha256(file)] for file in loaded_files() if is_of_user(file) and file.is_file()]
    return sorted(found)
