"""Names of a file as they stand in a program: a literal that gives the name back, a comment that nothing in it ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORT: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""Escapes that all languages have."""


def _units(character: str) -> str:
    """By its UTF-16 code units, as Kotlin wants it."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))


_ESCAPES: Final[dict[str, Callable[[str], str]]] = {
    "py": lambda character: f"\\U{ord(character):08x}",
    "mjs": lambda character: f"\\u{{{ord(character):x}}}",
    "cpp": lambda character: "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogatepass")),
    "kt": _units,
    "swift": lambda character: f"\\u{{{ord(character):x}}}",
}
"""Ending of a program -> how its language writes a character that is not printed."""


def literal(text: str, language: str) -> str:
    """A literal of a language with that value.

    Only what is printed stands in it as it is: a character that reorders the line around it, or hides, would make a
    program look like another one.
    """
    return '"' + "".join(_written(character, language) for character in text) + '"'


def comment(text: str) -> str:
    """Inside a comment of any language."""
    return re.sub(r"[^\w .:()\[\]-]", "?", text)


def _written(character: str, language: str) -> str:
    if character == "$" and language == "kt":
        return "\\$"
    if character in _SHORT:
        return _SHORT[character]
    return character if character.isprintable() else _ESCAPES[language](character)
