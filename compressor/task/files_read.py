"""Which files the user's task opens: its data, and its checkpoint."""

from __future__ import annotations

import os
import site
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.files import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_CODE = (".py", ".pyc", ".so")
_SYSTEM = ("/proc", "/sys", "/etc")


class _Watch:
    """An audit hook, which cannot be taken away once it is added; it does nothing while nobody listens."""

    def __init__(self) -> None:
        self._added = False
        self._listening: set[str] | None = None
        self._thread = 0

    @contextmanager
    def listen(self, opened: set[str]) -> Iterator[None]:
        if not self._added:
            self._added = True
            sys.addaudithook(self._hook)
        before = self._listening, self._thread
        self._listening, self._thread = opened, threading.get_ident()
        try:
            yield
        finally:
            self._listening, self._thread = before

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._listening is None or event != "open" or threading.get_ident() != self._thread:
            return
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wax+")
        if isinstance(path, (str, bytes)) and not writes:
            self._listening.add(str(Path(os.fsdecode(path)).absolute()))


_WATCH = _Watch()


@contextmanager
def noting_files(opened: set[str]) -> Iterator[None]:
    """Add the paths of all files that this thread opens through Python to `opened`, while the block runs.

    Files that a library opens in C, without Python's `open`, are not seen.
    """
    with _WATCH.listen(opened):
        yield


def data_files(opened: set[str]) -> list[Path]:
    """The files among `opened` that are there and neither code nor a part of Python, this tool or the system."""
    return sorted(path for path in map(Path, opened) if path.suffix not in _CODE and not _foreign(path))


def _foreign(path: Path) -> bool:
    """Whether a file belongs to Python, this tool or the system, or is gone."""
    installed = (sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages(), *_SYSTEM)
    roots = (*map(Path, installed), Path(__file__).resolve().parents[1], cache_folder())
    return any(path.is_relative_to(root) for root in roots) or not path.is_file()
