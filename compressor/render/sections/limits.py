"""Each limit of the recipe and what was reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render.blocks import Statement, Table
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.report import Limit, Report


def table(report: Report) -> Table:
    """One row a limit."""
    rows = (
        (limit.name, _bound(limit), _quantity(limit.name, limit.reached), "met" if limit.met else "MISSED")
        for limit in report.limits
    )
    return Table(("limit", "wanted", "reached", ""), tuple(rows))


def statements(report: Report) -> list[Statement]:
    """Which limits are missed, or that all are met; nothing if the recipe sets none."""
    missed = [limit for limit in report.limits if not limit.met]
    said = [Statement("plain", text) for text in _not_judged(report)]
    if missed:
        text = "Limits missed: " + "; ".join(_missed(limit) for limit in missed) + "."
        return [Statement("bad", text), *said]
    if not report.limits:
        return said
    return [Statement("good", f"Limits met: {len(report.limits)} of {len(report.limits)}."), *said]


def _not_judged(report: Report) -> Iterator[str]:
    """The limits of the recipe that a rehearsal leaves to the whole run."""
    checked = {limit.name.rpartition(": ")[2] for limit in report.limits}
    wanted = {name for name, value in report.recipe.get("limits", {}).items() if value is not None}
    if report.quick and wanted - checked:
        yield f"Not judged by a rehearsal: {', '.join(sorted(wanted - checked))}."


def _missed(limit: Limit) -> str:
    return f"{limit.name} reached {_quantity(limit.name, limit.reached)}, wanted {_bound(limit)}"


def _bound(limit: Limit) -> str:
    word = "at least" if _wants_more(limit.name) else "at most"
    return f"{word} {_quantity(limit.name, limit.limit)}"


def _wants_more(name: str) -> bool:
    return name.endswith(("ratio", "speedup"))


def _quantity(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return form.size(round(value))
    if name.endswith("_ms"):
        return form.milliseconds(value)
    if name.endswith("_relative"):
        return form.percent(value)
    return form.ratio(value) if _wants_more(name) else form.metric(value)


LIMITS: Section[Report] = Section("Limits", lambda report: (table(report),) if report.limits else (), leads=True)
