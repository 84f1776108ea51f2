"""Patterns that name modules and parameters: globs, or a regular expression after `re:`."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_REGULAR = "re:"
_LONGEST = 300
_SHOWN = 40
_ESCAPED = re.compile(r"\\.|\[\^?\]?[^\]]*\]")
"""One character of a pattern: escaped, or of a set."""
_REPEATED = re.compile(r"[*+]|\{\d*,")
_VARIES = re.compile(r"[*+?|]|\{\d*,")


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise `ValueError` on a pattern that can match nothing or is not a regular expression."""
    for pattern in patterns:
        expression = pattern.removeprefix(_REGULAR)
        if not expression:
            raise ValueError(f"`{pattern[:_SHOWN]}` is an empty pattern")
        if len(expression) > _LONGEST:
            raise ValueError(f"`{pattern[:_SHOWN]}...` is a pattern of more than {_LONGEST} characters")
        if pattern.startswith(_REGULAR):
            try:
                re.compile(expression)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"`{pattern}` is not a regular expression: {error}") from error
            if _may_take_forever(expression):
                raise ValueError(f"`{pattern}` repeats what is repeated, which may take forever: repeat one of both")


def _may_take_forever(expression: str) -> bool:
    """Whether a group that repeats or chooses is repeated: matching may take twice as long for each further letter."""
    text = _ESCAPED.sub("x", expression)
    varies = [False]
    for place, letter in enumerate(text):
        if letter == "(":
            varies.append(False)
        elif letter == ")" and len(varies) > 1:
            inside = varies.pop()
            if inside and _REPEATED.match(text, place + 1):
                return True
            varies[-1] |= inside
        elif _VARIES.match(text, place) and text[place - 1 : place] != "(":  # `(?:` and the like
            varies[-1] = True
    return False


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern matches the whole name."""
    if pattern.startswith(_REGULAR):
        return re.fullmatch(pattern.removeprefix(_REGULAR), name) is not None
    return fnmatchcase(name, pattern)
