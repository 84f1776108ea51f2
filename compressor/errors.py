"""Every exception of ours, one tree: a message, the place it is about, and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ERRORS: Final = 20
"""Of several errors, so many are shown."""
_MOST_LINES: Final = 40
_MOST_CHARACTERS: Final = 1000
"""Of a line that is shown."""
_SOURCE_CHARACTERS: Final = 120
"""Of the source line over a caret."""
_CUT: Final = " ... "


def shortened(text: str) -> str:
    """`text` with the middle of very long lines, and lines after very many, left out."""
    lines = text.split("\n")
    more = len(lines) - _MOST_LINES
    shown = [_shortened(line) for line in lines[:_MOST_LINES]]
    return "\n".join([*shown, f"... and {more} more lines"] if more > 0 else shown)


def _shortened(line: str) -> str:
    if len(line) <= _MOST_CHARACTERS:
        return line
    tail = _MOST_CHARACTERS // 4
    return f"{line[: _MOST_CHARACTERS - tail - len(_CUT)]}{_CUT}{line[-tail:]}"


@dataclass(frozen=True)
class Place:
    """A position in a text file; `line` and `column` count from 1."""

    file: str
    line: int | None = None
    column: int | None = None
    source: str | None = None
    """The text of the line, shown under the error."""

    def render(self) -> str:
        """The place as an arrow line and, if the source line is known, a caret under the column."""
        parts = (_shortened(self.file), self.line, self.column)
        position = ":".join(str(part) for part in parts if part is not None)
        if self.source is None or self.line is None:
            return f" --> {position}"
        gutter = f"{self.line} | "
        bar = " " * (len(gutter) - 2) + "| "
        source, column = self._window(self.source, self.column or 1)
        return f" --> {position}\n{gutter}{source}\n{bar}{' ' * (column - 1)}^"

    @staticmethod
    def _window(source: str, column: int) -> tuple[str, int]:
        """The part of a long line around a column, and where the column is in it."""
        if len(source) <= _SOURCE_CHARACTERS:
            return source, column
        start = max(0, min(column - 1 - _SOURCE_CHARACTERS // 2, len(source) - _SOURCE_CHARACTERS))
        before = "..." if start else ""
        after = "..." if start + _SOURCE_CHARACTERS < len(source) else ""
        return f"{before}{source[start : start + _SOURCE_CHARACTERS]}{after}", column - start + len(before)


class CompressorError(Exception):
    """Something that the user can fix: shown as `error`, place and `hint`, without a traceback; exit code 2."""

    def __init__(self, message: str, *, hint: str | None = None, place: Place | None = None) -> None:
        """Keep the three parts apart so that a view can colour them."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place

    def render(self) -> str:
        """The whole error as plain text; of very long lines, and of very many, a part."""
        parts = [shortened(f"error: {self.message}")]
        if self.place is not None:
            parts.append(self.place.render())
        if self.hint is not None:
            parts.append(shortened(f"hint: {self.hint}"))
        return "\n".join(parts)

    def __str__(self) -> str:
        """Same text as `render`, so that a library user sees the hint too."""
        return self.render()


class UsageError(CompressorError):
    """A command line or a call that cannot be meant."""


class RecipeError(CompressorError):
    """A recipe that cannot be read or is not valid."""


class RecipeErrors(RecipeError):
    """Several errors of one recipe, shown together."""

    def __init__(self, errors: Sequence[RecipeError]) -> None:
        """`errors` holds at least one error."""
        super().__init__(errors[0].message, hint=errors[0].hint, place=errors[0].place)
        self.errors = tuple(errors)

    def render(self) -> str:
        """The errors, a blank line between them; of very many the first."""
        shown = [error.render() for error in self.errors[:MOST_ERRORS]]
        more = len(self.errors) - len(shown)
        return "\n\n".join([*shown, f"... and {more} more"] if more else shown)


class TaskError(CompressorError):
    """A task file that cannot be loaded, or a function of it that raised or returned the wrong thing."""


class CheckpointError(CompressorError):
    """A checkpoint that is not safe, not readable, or does not fit the model."""


class MethodError(CompressorError):
    """A step that cannot be carried out, or that changed nothing."""


class SurgeryError(MethodError):
    """A topology from which units cannot be taken; the model is untouched."""


class ExportError(CompressorError):
    """A model that could not be exported, or whose file is not right."""


class ParityError(ExportError):
    """An exported file that disagrees with PyTorch; such a file is never kept."""


class OutputError(CompressorError):
    """A folder or file that cannot be written or would be overwritten."""


class ReportError(CompressorError):
    """A report that cannot be read."""


class TaskNote(UserWarning):
    """Something that was done for the user while the task was read, and that a report should say."""


def first_line(error: BaseException) -> str:
    """Kind and first line of an error, for a message that quotes it."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
