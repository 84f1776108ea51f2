"""Progress on standard error: bars with the remaining time on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from compressor.cli.output import say
from compressor.progress import LineBar
from compressor.render.text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from rich.progress import Progress as RichProgress
    from rich.progress import Task as RichTask
    from rich.progress import TaskID

    from compressor.progress import Bar


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
            return nullcontext(LineBar(description, total, say))
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
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Done(ProgressColumn):
        """`120/400, 0:01:10, 0:00:20 left`; of work whose end is not known, the time alone."""

        def render(self, task: RichTask) -> Text:
            return Text(done_so_far(task.completed, task.total, task.elapsed, task.time_remaining))

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        Done(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        expand=True,
        transient=True,
    )


def done_so_far(done: float, total: float | None, elapsed: float | None, left: float | None) -> str:
    """What a bar says beside itself: how much is done, for how many seconds it runs, how many are left."""
    parts = [f"{timedelta(seconds=int(elapsed or 0))}"]
    if total is not None:
        parts = [f"{done:.0f}/{total:.0f}", *parts]
        parts.append(f"{'-:--:--' if left is None else timedelta(seconds=int(left))} left")
    elif done:
        parts = [f"{done:.0f} done", *parts]
    return ", ".join(parts)
