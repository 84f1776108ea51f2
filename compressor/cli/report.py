"""`compressor report`: show a finished run or search again."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from compressor.cli.output import emit, emit_json_text, emit_rich
from compressor.errors import ReportError
from compressor.files import read_text


def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run or a search.", show_default=False)],
    form: Annotated[
        Literal["table", "md", "json", "html"], typer.Option("--format", help="How to write it.")
    ] = "table",
) -> None:
    """Write the report of a finished run or search to standard output."""
    from compressor.report import Report

    path = Path(folder)
    file = path / "report.json" if path.is_dir() else path
    text = read_text(file, ReportError, hint="give the --out folder of a finished run or search")
    if _is_search(text):
        _search(text, form)
        return
    facts = Report.from_json(text)
    match form:
        case "json":
            emit_json_text(facts.to_json())
        case "md":
            from compressor.render import markdown

            emit(markdown.page(facts))
        case "html":
            from compressor.render import html

            emit(html.page(facts))
        case "table":
            from compressor.render import terminal

            emit_rich(*terminal.page(facts))


def _is_search(text: str) -> bool:
    try:
        content = json.loads(text)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("kind") == "search"


def _search(text: str, form: str) -> None:
    from compressor.render import search_pages
    from compressor.report import SearchReport

    facts = SearchReport.from_json(text)
    match form:
        case "json":
            emit_json_text(facts.to_json())
        case "md":
            emit(search_pages.markdown(facts))
        case "html":
            emit(search_pages.html(facts))
        case _:
            emit_rich(*search_pages.terminal(facts))
