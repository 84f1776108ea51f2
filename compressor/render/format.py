"""Numbers as a person reads them: few digits, always a unit."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressor.report import Interval, Latency, Score

_SMALLEST_DECIMAL, _LARGEST_DECIMAL = 1e-3, 1e3
_CALLED_SAME = 0.005


def significant(value: float, digits: int = 3) -> str:
    """`value` to so many significant digits, never in scientific form: 0.0832, 1.50, 1234."""
    if value == 0 or not math.isfinite(value):
        return f"{value + 0.0:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def short(value: object) -> str:
    """A number of a recipe in as few digits as it needs; anything else as text."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def metric(value: float) -> str:
    """A metric with four decimals, or four significant digits if that says more."""
    value += 0.0  # no minus before a zero
    if value == 0 or _SMALLEST_DECIMAL <= abs(value) < _LARGEST_DECIMAL:
        return f"{value:.4f}"
    return f"{value:.4g}"


def count(value: int) -> str:
    """An exact count: 27,721."""
    return f"{value:,}"


def large_count(value: int | None) -> str:
    """A rounded count: 4.30 M; `not counted` for none."""
    if value is None:
        return "not counted"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= 10 * size or (value >= size and unit != "k"):
            return f"{significant(value / size)} {unit}"
    return count(value)


def size(value: int | None) -> str:
    """Bytes as B, KiB or MiB; `not known` for none."""
    if value is None:
        return "not known"
    for unit, unit_bytes in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(value) >= unit_bytes:
            return f"{value / unit_bytes:,.1f} {unit}"
    return f"{value} B"


def decimal_size(value: float) -> str:
    """Bytes as B, KB or MB of a thousand, as people ask for them: 6.81 KB."""
    for unit, unit_bytes in (("MB", 1e6), ("KB", 1e3)):
        if value >= unit_bytes:
            return f"{significant(value / unit_bytes)} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """2 h 5 min, 3 min 20 s, or 12 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def milliseconds(value: float) -> str:
    """A latency: 0.642 ms."""
    return f"{significant(value)} ms"


def profiled(value: float) -> str:
    """A time that was counted in whole microseconds, given in ms: 24 µs, 1.30 ms."""
    return milliseconds(value) if value >= 1 else f"{1000 * value:.4g} µs"


def seconds(value: float) -> str:
    """A duration: 0.31 s, 12 s, 3 min 05 s."""
    if value < 60:
        return f"{significant(value, 2)} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def ratio(value: float) -> str:
    """A quotient: 2.73x."""
    return f"{significant(value)}x"


def percent(fraction: float) -> str:
    """A fraction 0..1 as 12.5 %; never rounded to 0 or 100 when it is neither."""
    if 0 < fraction < 0.0005:
        return "under 0.1 %"
    if 0.9995 < fraction < 1:
        return "over 99.9 %"
    return f"{100 * fraction:.1f} %"


def error(value: float) -> str:
    """A numerical error: 3.1e-07."""
    return f"{value:.1e}" if value else "0"


def between(interval: Interval, form: Callable[[float], str]) -> str:
    """The two ends of an interval: 2.68x to 2.79x."""
    return f"{form(interval.low)} to {form(interval.high)}"


def confidence(interval: Interval) -> str:
    """`95 % interval`."""
    return f"{100 * interval.confidence:g} % interval"


def score(value: Score) -> str:
    """A metric with its interval: 0.9784 (0.9622 to 0.9919)."""
    return metric(value.value) + ("" if value.interval is None else f" ({between(value.interval, metric)})")


def median(latency: Latency | None) -> str:
    """The median of a latency, or `not measured`."""
    return "not measured" if latency is None else milliseconds(latency.p50)


def spread(latency: Latency | None) -> str:
    """Where the middle 80 % of a latency lie, or `not measured`."""
    return "not measured" if latency is None else f"{significant(latency.p10)} to {milliseconds(latency.p90)}"


def shape(value: tuple[int | str, ...]) -> str:
    """Axes with their sizes or names: batch × time × 12; `scalar` for none."""
    return " × ".join(str(size) for size in value) or "scalar"


def arrow(before: str, after: str) -> str:
    """`before → after`, or one of them if they are the same."""
    return before if before == after else f"{before} → {after}"


def plural(number: int, one: str, several: str = "") -> str:
    """`1 thread`, `2 threads`; `several` if it does not end with an s."""
    return f"{count(number)} {one if number == 1 else several or one + 's'}"


def moment(text: str) -> str:
    """An ISO 8601 time to the minute, in UTC; another text as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return text


def change(before: float | None, after: float | None, *, less: str, more: str) -> str:
    """How many times less or more: `3.9x smaller`, `1.2x larger`, `same`; empty if either is not known."""
    if not before or not after:
        return ""
    quotient = before / after
    if abs(quotient - 1) < _CALLED_SAME:
        return "same"
    return f"{ratio(quotient)} {less}" if quotient > 1 else f"{ratio(1 / quotient)} {more}"
