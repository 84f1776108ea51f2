"""A report on the terminal: rich renderables, in which text of the user's can neither colour, move nor forge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from compressor.render.blocks import (
    ALARMS,
    MARKS,
    Cards,
    Code,
    Details,
    Figures,
    Group,
    Heading,
    Items,
    Links,
    Statement,
    Statements,
    Table,
    Text,
)
from compressor.render.pages import drawn_in
from compressor.render.text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import rich.text
    from rich.console import RenderableType

    from compressor.render.blocks import Block, Tone
    from compressor.render.pages import Facts

_NAME_COLUMNS: Final = 28
"""Names of rows up to this length are not broken, however narrow the terminal is."""
_STYLES: Final[dict[Tone, str]] = {"good": "green", "bad": "bold red", "plain": ""}


def page(facts: Facts) -> list[RenderableType]:
    """What the terminal shows of a report, to be printed one below the other."""
    parts: list[RenderableType] = []
    for section, blocks in drawn_in("terminal", facts):
        if parts:
            parts.append("")
        if section.title:
            parts.append(_text(section.title, "bold"))
        parts += draw(blocks)
    return parts


def draw(blocks: Iterable[Block]) -> Iterator[RenderableType]:
    """Blocks as renderables; a plot has none."""
    for block in blocks:
        match block:
            case Heading():
                yield _text(block.text, "bold").append(" ").append(_statement(block.verdict))
            case Text():
                yield _text(block.text, "dim" if block.muted else "")
            case Statements():
                yield from map(_statement, block.items)
            case Cards():
                yield from (_text(f"{card.title}: {card.before} → {card.after}, {card.change}") for card in block.items)
            case Table():
                yield _table(block)
            case Items():
                yield from (_text(f"- {item}") for item in block.items)
            case Links():
                yield from (_text(f"- {file}") for file in block.files)
            case Figures():
                pass
            case Code():
                yield _literal(block.text)
            case Group() | Details():
                yield _text(block.title, "bold")
                yield from draw(block.blocks)
            case _:
                assert_never(block)


def _statement(statement: Statement) -> rich.text.Text:
    return _text(f"{MARKS[statement.tone]} {statement.text}", _STYLES[statement.tone])


def _table(table: Table) -> RenderableType:
    from rich import box
    from rich.table import Table as Grid

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(table.header))
    longest = max((len(one_line(row[0])) for row in table.rows), default=0)
    for index, (name, numeric) in enumerate(zip(table.header, table.numeric, strict=True)):
        whole = index == 0 and longest <= _NAME_COLUMNS
        grid.add_column(_text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in table.rows:
        grid.add_row(*(_text(cell, "bold red" if cell in ALARMS else "") for cell in row))
    return grid


def _text(value: str, style: str = "") -> rich.text.Text:
    """`value` on one line, as it is: no markup of rich's, no control characters."""
    return _literal(one_line(value), style)


def _literal(value: str, style: str = "") -> rich.text.Text:
    from rich.text import Text

    return Text(printable(value), style=style)
