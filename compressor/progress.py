"""How long work tells that it goes on; the command line shows bars, a library user sees nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


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
