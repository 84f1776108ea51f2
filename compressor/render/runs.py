"""Several runs side by side, as every view shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import Figure, Figures, Heading, Items, Statement, Table, Text
from compressor.render.plots import scatter
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import RunFile, Runs

_LIMITS: Final = {True: "met", False: "MISSED", None: ""}


def title(runs: Runs) -> str:
    """What is compared."""
    return f"{form.plural(len(dict.fromkeys(file.run for file in runs.files if file.run)), 'run')} of {runs.task}"


def table(runs: Runs) -> Table:
    """One row a file; the first is an original."""
    names = ("run", "#", "recipe", "file", runs.metric, "interval", "file size", "latency p50", "speed", "parameters")
    rows = tuple(_row(index, file) for index, file in enumerate(runs.files, 1))
    return Table((*names, "limits", ""), rows).without_empty_columns()


def _row(index: int, file: RunFile) -> tuple[str, ...]:
    return (
        file.run or "original",
        str(index),
        file.name if file.run else "",
        file.file,
        form.metric(file.metric),
        form.between(file.interval, form.metric) if file.interval else "",
        form.size(file.bytes),
        form.milliseconds(file.latency_ms) if file.latency_ms is not None else "",
        form.ratio(file.speedup) if file.speedup is not None else "",
        form.count(file.parameters),
        _LIMITS[file.limits_met],
        "unbeaten" if file.unbeaten else "",
    )


def _heading(runs: Runs) -> Iterator[Block]:
    unbeaten = sum(file.unbeaten for file in runs.files)
    verdict = f"{unbeaten} of {form.plural(len(runs.files), 'file')} unbeaten"
    yield Heading(title(runs), Statement("plain", verdict))
    better = "higher" if runs.higher_is_better else "lower"
    yield Text(
        f"{runs.metric} on the exported files ({better} is better), bytes and latency. Unbeaten: no other file is as "
        "good in all three and better in one. Speed: the run's own original / the file, timed interleaved.",
        muted=True,
    )


def _plots(runs: Runs) -> Iterator[Block]:
    drawn = (
        ("file size", scatter.drawing(runs, lambda file: file.bytes, lambda value: form.size(round(value)), unit=1024)),
        ("latency", scatter.drawing(runs, lambda file: file.latency_ms, form.milliseconds)),
    )
    described = "Filled: unbeaten; grey: original; numbers as in the table."
    figures = tuple(Figure(f"{runs.metric} and {name}", described, svg) for name, svg in drawn if svg is not None)
    if figures:
        yield Figures(figures)


SECTIONS: Final[tuple[Section[Runs], ...]] = (
    Section("", lambda runs: tuple(_heading(runs))),
    Section("Files", lambda runs: (table(runs),), leads=True),
    Section("Plots", lambda runs: tuple(_plots(runs)), views=frozenset({"html"})),
    Section("Notes", lambda runs: (Items(runs.notes),) if runs.notes else ()),
)
