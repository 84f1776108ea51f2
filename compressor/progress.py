"""How long work tells that it goes on; the command line shows bars, a library user sees nothing."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS_BETWEEN_LINES: Final = 10.0


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """`amount` more of the total is done; `note` is a short text such as `loss 0.31`."""


class Progress(Protocol):
    """Where progress goes."""

    def bar(self, description: str, total: int | None) -> AbstractContextManager[Bar]:
        """A context manager that gives a `Bar`; `total` is None if it is not known."""

    def say(self, text: str) -> None:
        """One line about what begins or ended."""


class SilentBar:
    """A bar that shows nothing."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Do nothing."""


class Silent:
    """Progress that shows nothing; the default of a library call."""

    @contextmanager
    def bar(self, description: str, total: int | None) -> Iterator[SilentBar]:
        """Give a silent bar."""
        yield SilentBar()

    def say(self, text: str) -> None:
        """Do nothing."""


class Lines:
    """Progress as printed lines, which scripts, logs and notebooks show alike."""

    @contextmanager
    def bar(self, description: str, total: int | None) -> Iterator[LineBar]:
        """A bar that prints where the work is, every some seconds."""
        yield LineBar(description, total, self.say)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)


class LineBar:
    """Says where the work is every `SECONDS_BETWEEN_LINES`, so that a log stays readable."""

    def __init__(self, description: str, total: int | None, say: Callable[[str], None]) -> None:
        """`say` takes a line."""
        self._description = description
        self._total = total
        self._say = say
        self._done = 0
        self._start = self._last = self._moved = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """`amount` more of the total is done."""
        self._done += amount
        now = time.monotonic()
        if amount:
            self._moved = now
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        self._say(
            progress_line(
                self._description, self._done, self._total, self._moved - self._start, note, now - self._moved
            )
        )


def progress_line(description: str, done: int, total: int | None, seconds: float, note: str, since: float = 0.0) -> str:
    """`training: 120/400 (30 %), 70 s left, loss 0.31`.

    Args:
        description: What is done.
        done: How much of it is.
        total: All of it, if known.
        seconds: That `done` took.
        note: A short text.
        since: Seconds since then, which are not left any more; if a part takes longer than those before it, nothing is
            known of what is left, and nothing is said.
    """
    parts = [f"{done}"]
    if total:
        left = seconds / done * max(total - done, 0) - since if done else 0.0
        parts = [f"{done}/{total} ({100 * done / total:.0f} %)"]
        parts += [f"{left:.0f} s left"] if left > 0 or done >= total else []
    return f"{description}: {', '.join([*parts, note] if note else parts)}"


class Logged:
    """Progress that also goes into a file, each line with its time (UTC); a disk that is full does not stop it."""

    def __init__(self, progress: Progress, path: Path) -> None:
        """Show what `progress` shows, and add lines to the file `path`."""
        self._progress = progress
        self._path = path

    @contextmanager
    def bar(self, description: str, total: int | None) -> Iterator[Bar]:
        """The bar of the other progress, and lines of its own."""
        with self._progress.bar(description, total) as shown:
            yield _BothBars(shown, LineBar(description, total, self.note))

    def say(self, text: str) -> None:
        """A line in both places."""
        self._progress.say(text)
        self.note(text)

    def note(self, text: str) -> None:
        """A line in the file alone."""
        try:
            with self._path.open("a", encoding="utf-8") as log:
                log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  {text}\n")
        except OSError:
            return


class _BothBars:
    def __init__(self, first: Bar, second: Bar) -> None:
        self._bars = first, second

    def advance(self, amount: int = 1, note: str = "") -> None:
        for bar in self._bars:
            bar.advance(amount, note)
