"""Patterns that name modules and parameters: globs, or a regular expression after `re:`."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_REGULAR = "re:"


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise `ValueError` on a pattern that can match nothing or is not a regular expression."""
    for pattern in patterns:
        expression = pattern.removeprefix(_REGULAR)
        if not expression:
            raise ValueError(f"`{pattern}` is an empty pattern")
        if pattern.startswith(_REGULAR):
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"`{pattern}` is not a regular expression: {error}") from error


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern matches the whole name."""
    if pattern.startswith(_REGULAR):
        return re.fullmatch(pattern.removeprefix(_REGULAR), name) is not None
    return fnmatchcase(name, pattern)
