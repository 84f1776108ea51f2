"""Temporary folders that the next one removes if the process that made them was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from compressor.files.staged import locked

_MARK = ".scratch"
"""The file that tells such a folder from any other of a like name."""


class Scratch:
    """A temporary folder that is gone when it is closed, or nothing holds this object any more.

    A process that is killed cannot tidy up. Its lock ends with it, so the next folder of this kind knows.
    """

    def __init__(self, parent: Path | None = None, prefix: str = "compressor-") -> None:
        """Make an empty one, and remove those that were left behind.

        Args:
            parent: Gets it; the system's folder for temporary files by default.
            prefix: Of its name.

        Raises:
            OSError: `parent` cannot be written.
        """
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        with contextlib.suppress(OSError):  # nobody promised that it can be tidied
            _tidy(parent, prefix)
        self.path = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        lock = contextlib.ExitStack()
        lock.enter_context(locked(self.path))
        (self.path / _MARK).touch()  # from now on it is looked at by others, who find it locked
        self.close = weakref.finalize(self, _remove, self.path, lock)


def _tidy(parent: Path, prefix: str) -> None:
    """Remove the folders whose process has ended; where there are no locks nothing is known, and they stay."""
    for other in parent.iterdir():
        if other.name.startswith(prefix):
            with contextlib.suppress(OSError):  # in use, another user's, or gone meanwhile: the others are looked at
                _remove_left(other)


def _remove_left(folder: Path) -> None:
    """Remove a folder whose process has ended; raises `OSError` if it has not, or the folder cannot be looked at."""
    if not (folder / _MARK).is_file():
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(handle)


def _remove(path: Path, lock: contextlib.ExitStack) -> None:
    shutil.rmtree(path, ignore_errors=True)
    lock.close()
