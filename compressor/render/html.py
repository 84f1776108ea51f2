"""`report.html`: one file with everything in it, nothing loaded from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from compressor.render.blocks import ALARMS, MARKS
from compressor.render.sections import shown
from compressor.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.render.blocks import Block
    from compressor.report import Report

_TEMPLATE: Final = "report.html.j2"
_MOST_COLUMNS: Final = 4
"""A table with more of them is drawn row by row on a phone."""


def page(report: Report) -> str:
    """The whole report as a self-contained page: all text of the report's escaped, plots as inline SVG."""
    return document(report.name, [(section.title, section.anchor, blocks) for section, blocks in shown(report, "html")])


def document(title: str, sections: Sequence[tuple[str, str, Sequence[Block]]]) -> str:
    """A self-contained page of sections, each with its title, its name as a place in the page, and its blocks."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("compressor.render").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    rendered: str = environment.from_string(source).render(
        title=title,
        sections=sections,
        kind=_kind,
        link=_link,
        marks=MARKS,
        alarms=ALARMS,
        most_columns=_MOST_COLUMNS,
    )
    return rendered


def _finalize(value: Any) -> Any:
    """Text without control characters; what is HTML already stays."""
    return printable(value) if type(value) is str else value


def _kind(block: Block) -> str:
    return type(block).__name__


def _link(file: str) -> str:
    """The address of a file in the page's folder; empty for a name that leads elsewhere."""
    inside = bool(file) and not file.startswith("/") and not {"", ".", ".."} & set(file.split("/"))
    return f"./{quote(printable(file))}" if inside else ""
