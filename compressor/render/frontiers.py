"""What a search found on a model, as a table for the terminal and the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.search import step_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.report import KnownFrontier, KnownPoint

HEADER: Final = ("point", "bytes", "smaller", "loss", "95 % interval", "parameters", "stored in", "steps")


def rows(frontier: KnownFrontier) -> list[tuple[str, ...]]:
    """One row for each file, the smallest first."""
    return [_row(frontier, point) for point in frontier.points]


def _row(frontier: KnownFrontier, point: KnownPoint) -> tuple[str, ...]:
    interval = point.drop.interval
    return (
        str(point.number),
        form.count(point.bytes),
        f"{form.significant(frontier.original_bytes / point.bytes)}x",
        f"{point.drop.value:.4f}",
        "" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}",
        "" if point.parameters is None else form.count(point.parameters),
        _stored(point),
        "; ".join(map(step_words, point.recipe.steps)) or "nothing removed",
    )


def _stored(point: KnownPoint) -> str:
    (export,) = point.recipe.exports
    rounding = export.get("rounding")
    bits = rounding.get("bits") if isinstance(rounding, dict) else None
    return str(export.get("precision", "float32")) + ("" if bits is None else f", {form.short(bits)} bits")


def conditions(frontier: KnownFrontier) -> Iterator[str]:
    """What the numbers depend on, in sentences."""
    original = frontier.original
    yield (
        f"original: {original.metric} {original.value:.4f}, {form.count(frontier.original_bytes)} bytes, "
        f"{form.count(frontier.parameters)} parameters"
    )
    counts = ", ".join(f"{count} {words}" for words, count in frontier.trials.items())
    goal = "" if frontier.max_drop is None else f" for a loss of at most {frontier.max_drop:g}"
    yield f"search{goal}: {counts}; {form.duration(frontier.seconds)} of trials; {frontier.conditions}"
    yield f"space: {'; '.join(frontier.space)}"
