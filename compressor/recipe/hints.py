"""What is probably meant: hints for values and words that a recipe does not take."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

from compressor.recipe.words import Schema, alternatives

if TYPE_CHECKING:
    from collections.abc import Iterable

_YAML_1_1_BOOLS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_UNITS = {"%": 0.01, "x": 1, "ms": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
"""Unit -> what a recipe's own unit is to it."""
_MEANT = {"%": ": a fraction of 1"} | dict.fromkeys(("b", "kb", "mb", "gb", "kib", "mib", "gib"), ": bytes")
_WITH_UNIT = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})", re.IGNORECASE)


def hint_for(value: Any, here: Schema, wanted: str) -> str | None:
    """How a value is written that is not what is wanted.

    Args:
        value: As it stands in the file.
        here: Schema of its place.
        wanted: What `expected` says of that.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 5 <= value < 100 and "below 1" in wanted:
        return f"write a fraction: {value:g} % is `{value / 100:.12g}`"
    if not isinstance(value, str):
        return None
    if "enum" in here or "const" in here:
        return did_you_mean(value, [str(word) for word in here.get("enum", [here.get("const")])])
    if here.get("type") == "array":
        return f"write `[{value}]`"
    if (
        any(option.get("type") == "boolean" for option in (here, *alternatives(here)))
        and value.lower() in _YAML_1_1_BOOLS
    ):
        return f"write `{_YAML_1_1_BOOLS[value.lower()]}`: in YAML 1.2 `{value}` is text"
    return _number_hint(value, here) if "number" in wanted else None


def _number_hint(text: str, here: Schema) -> str | None:
    """How a number with a unit, or one in quotes, is written in a recipe."""
    if _is_number(text):
        return "write the number without quotes, underscores or spaces"
    parts = _WITH_UNIT.fullmatch(text)
    if parts is None:
        return None
    number, unit = float(parts[1]), parts[2].lower()
    meant = number * _UNITS[unit]
    if not any(_is_in_range(meant, option) for option in (here, *alternatives(here))):
        return None
    return f"write `{meant:.12g}`{_MEANT.get(unit, ', without a unit')}"


def _is_in_range(number: float, here: Schema) -> bool:
    infinity = math.inf
    return here.get("type") in ("number", "integer") and (
        here.get("minimum", -infinity) <= number <= here.get("maximum", infinity)
        and here.get("exclusiveMinimum", -infinity) < number < here.get("exclusiveMaximum", infinity)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest to one, as a question."""
    names = list(known)
    short = "".join(part[:1] for part in word.split("_"))  # learning_rate is `lr`
    near = [short] if "_" in word and short in names else difflib.get_close_matches(word, names, n=1)
    return f"did you mean `{near[0]}`?" if near else None


def quoted(names: Iterable[str]) -> str:
    """Names in a row."""
    return ", ".join(f"`{name}`" for name in names)
