"""Commands of older versions, refused with the name that they have now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOVED: Final[Mapping[tuple[str, str], str]] = {
    ("inspect", "--sensitivity"): "compressor sensitivity",
    ("inspect", "--lattice"): "compressor draw lattice",
    ("graphs", "draw"): "compressor draw graph",
    ("graphs", "study"): "compressor study graphs",
}
"""Command and the word after it that says what was meant -> the command now."""


def refuse_moved(arguments: Sequence[str]) -> None:
    """Raise `UsageError` if these are the arguments of a command that has another name now."""
    for (command, word), new in MOVED.items():
        if arguments[:1] == [command] and word in arguments[1:]:
            raise UsageError(f"`compressor {command} {word}` is now `{new}`", hint=f"`{new} --help` shows its options")
