"""`report.md`: the report as GitHub-flavoured Markdown, for a reviewer who reads text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, assert_never

from compressor.render.blocks import (
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

    from compressor.render.blocks import Block
    from compressor.render.pages import Facts

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~])|(&)(?=#?\w+;)|^([-+])(?=[-\s]|$)|^(\d+)([.)])(?=\s|$)")
"""What Markdown or HTML reads as markup: anywhere, in an entity, and at the start of a line."""


def page(facts: Facts) -> str:
    """The whole report; all text of the facts is escaped."""
    parts: list[str] = []
    for section, blocks in drawn_in("markdown", facts):
        if section.title:
            parts.append(f"## {_text(section.title)}")
        parts += draw(blocks, level=3)
    return "\n\n".join(parts) + "\n"


def draw(blocks: Iterable[Block], level: int) -> Iterator[str]:
    """Blocks as paragraphs, titles in them as headings of this level and below; a plot has none."""
    for block in blocks:
        match block:
            case Heading():
                yield f"# {_text(block.text)}"
                yield f"**{MARKS[block.verdict.tone]} {_text(block.verdict.text)}**"
            case Text():
                yield _text(block.text)
            case Statements():
                yield _list(_marked(item) for item in block.items)
            case Cards():
                yield _list(_text(f"{card.title}: {card.before} → {card.after}, {card.change}") for card in block.items)
            case Table():
                yield _table(block)
            case Items():
                yield _list(map(_text, block.items))
            case Links():
                yield _list(map(_text, block.files))
            case Figures():
                pass
            case Code():
                yield _code(block)
            case Group() | Details():
                yield f"{'#' * level} {_text(block.title)}"
                yield from draw(block.blocks, level + 1)
            case _:
                assert_never(block)


def _table(table: Table) -> str:
    rule = "|".join("---:" if numeric else "---" for numeric in table.numeric)
    return "\n".join([_row(table.header), f"|{rule}|", *map(_row, table.rows)])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _marked(statement: Statement) -> str:
    """With its mark, unless that is a bullet, which every line of a list has."""
    mark = "" if statement.tone == "plain" else f"{MARKS[statement.tone]} "
    return f"{mark}{_text(statement.text)}"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _code(code: Code) -> str:
    """A fence longer than any run of backticks inside."""
    text = printable(code.text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{code.language}\n{text}\n{fence}"


def _text(value: str) -> str:
    """`value` on one line, with nothing in it that Markdown or HTML would read as markup."""
    return _SPECIAL.sub(_escape, one_line(value))


def _escape(match: re.Match[str]) -> str:
    anywhere, entity, first, number, point = match.groups()
    return f"{number}\\{point}" if number else f"\\{anywhere or entity or first}"
