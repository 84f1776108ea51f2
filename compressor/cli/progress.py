"""Progress on standard error: bars with the remaining time on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final, Self

from compressor.cli.output import say
from compressor.render.text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from compressor.progress import Bar

SECONDS_BETWEEN_LINES: Final = 10.0


class Terminal:
    """The `Progress` of the command line; a context manager that leaves the terminal as it was."""

    def __init__(self) -> None:
        """Bars where standard error is a terminal."""
        self._rich = _rich_progress() if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        """Start to draw."""
        if self._rich is not None:
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop to draw, bars of work that was cut off included."""
        if self._rich is not None:
            self._rich.stop()

    def bar(self, description: str, total: int | None) -> AbstractContextManager[Bar]:
        """A bar, gone when the work is done."""
        if self._rich is None:
            return _lines(description, total)
        return _drawn(self._rich, description, total)

    def say(self, text: str) -> None:
        """A line that stays, above the bars."""
        if self._rich is None:
            say(text)
        else:
            self._rich.console.print(printable(text), markup=False, highlight=False)


class _DrawnBar:
    def __init__(self, progress: RichProgress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=amount, note=one_line(note))


class _PlainBar:
    """Says where the work is every `SECONDS_BETWEEN_LINES`, so that a log stays readable."""

    def __init__(self, description: str, total: int | None) -> None:
        self._description = description
        self._total = total
        self._done = 0
        self._start = self._last = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        say(progress_line(self._description, self._done, self._total, now - self._start, note))


def progress_line(description: str, done: int, total: int | None, seconds: float, note: str) -> str:
    """`training: 120/400 (30 %), 70 s left, loss 0.31`."""
    parts = [f"{done}"]
    if total:
        left = seconds / done * max(total - done, 0) if done else 0.0
        parts = [f"{done}/{total} ({100 * done / total:.0f} %)", f"{left:.0f} s left"]
    return f"{description}: {', '.join([*parts, note] if note else parts)}"


@contextmanager
def _lines(description: str, total: int | None) -> Iterator[_PlainBar]:
    yield _PlainBar(description, total)


@contextmanager
def _drawn(progress: RichProgress, description: str, total: int | None) -> Iterator[_DrawnBar]:
    task = progress.add_task(one_line(description), total=total, note="")
    try:
        yield _DrawnBar(progress, task)
    finally:
        progress.refresh()  # work that took less than one redraw is seen too
        progress.remove_task(task)


def _rich_progress() -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        expand=True,
        transient=True,
    )
