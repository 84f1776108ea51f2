"""Quantities with units, as people write them: `600KB`, `5ms`, `2h`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER: Final = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
BYTES: Final[Mapping[str, float]] = {
    "": 1,
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
"""Unit -> bytes; case does not matter."""
MILLISECONDS: Final[Mapping[str, float]] = {"": 1, "us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1000}
"""Unit -> milliseconds."""
SECONDS: Final[Mapping[str, float]] = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
"""Unit -> seconds."""


def read(value: Any, units: Mapping[str, float], what: str, examples: str) -> Any:
    """A number of the smallest unit from a number or a text with a unit; other values stay for pydantic to refuse.

    Raises:
        ValueError: The text is not a number with one of the units.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    factors = {unit.lower(): factor for unit, factor in units.items()}
    match = re.fullmatch(rf"{_NUMBER}\s*([a-zµ]*)", str(value).strip().lower())
    if match is None or match[2] not in factors:
        raise ValueError(f"`{value}` is not {what}; write {examples}")
    return float(match[1]) * factors[match[2]]


def _bytes(value: Any) -> Any:
    number = read(value, BYTES, "a size", "a number with B, KB, MB, KiB or MiB, such as `600KB`")
    return int(number) if isinstance(number, float) else number


def _milliseconds(value: Any) -> Any:
    return read(value, MILLISECONDS, "a latency", "a number with us, ms or s, such as `5ms`")


def _seconds(value: Any) -> Any:
    return read(value, SECONDS, "a time", "a number with s, min, h or d, such as `90s`, `5min` or `2h`")


_TEXT_OR_NUMBER: Final = {"type": ["string", "number"]}

Bytes = Annotated[int, Field(ge=1), BeforeValidator(_bytes), WithJsonSchema({**_TEXT_OR_NUMBER, "examples": ["600KB"]})]
"""A size in bytes, or with a unit."""
Milliseconds = Annotated[
    float, Field(gt=0.0), BeforeValidator(_milliseconds), WithJsonSchema({**_TEXT_OR_NUMBER, "examples": ["5ms"]})
]
"""A time in milliseconds, or with a unit."""
Seconds = Annotated[
    float, Field(gt=0.0), BeforeValidator(_seconds), WithJsonSchema({**_TEXT_OR_NUMBER, "examples": ["2h"]})
]
"""A time with a unit, in seconds."""
