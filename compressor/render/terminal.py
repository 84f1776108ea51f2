"""The table at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import probe, view
from compressor.render.blocks import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from compressor.render.blocks import Statement
    from compressor.render.blocks import Table as Cells
    from compressor.report import Probe, Report

_STYLES = {"good": "green", "bad": "bold red", "plain": "default"}


def print_table(report: Report, console: Console) -> None:
    """Print the comparison, the limits and the sentences that matter; text of the user's is printed as it is."""
    from rich.text import Text

    console.print(_rich(view.comparison(report), title=report.name))
    for note in view.footnotes(report):
        console.print(Text(note, style="dim"))
    if (table := view.step_by_step(report)) is not None:
        console.print(_rich(table, title="step by step"))
        console.print(Text(view.step_footnote(report), style="dim"))
    for step in report.steps:
        if (others := view.beside(report, step)) is not None:
            console.print(_rich(others))
        for probed in step.probes:
            print_probe(probed, console)
    for artifact in view.files(report):
        if (rounded := view.quantization(artifact)) is not None:
            console.print(_rich(rounded, title=artifact.path))
            for sentence in view.rounding(artifact):
                console.print(Text(sentence, style="dim"))
    wanted = view.limits(report)
    if wanted is not None:
        console.print(_rich(wanted))
    print_statements(view.statements(report), console)


def print_statements(statements: Iterable[Statement], console: Console) -> None:
    """Print sentences, each with the mark and the colour of its tone."""
    from rich.text import Text

    for statement in statements:
        console.print(Text(f"{MARKS[statement.tone]} {statement.text}", style=_STYLES[statement.tone]))


def print_probe(probed: Probe, console: Console) -> None:
    """Print what a probe found, and how."""
    from rich.text import Text

    console.print(_rich(probe.table(probed), title=probe.title(probed)))
    console.print(Text(probe.conditions(probed), style="dim"))


def _rich(table: Cells, title: str | None = None) -> object:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=None if title is None else Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for index, name in enumerate(table.header):
        drawn.add_column(Text(name), justify="left" if index == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn
