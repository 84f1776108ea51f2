"""`compressor report`: show a finished run or search again."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from compressor.cli.output import emit, emit_json_text, emit_rich
from compressor.errors import ReportError
from compressor.files import json_object, read_text
from compressor.files.staged import settle


def report(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...", help="Folder of a run or a search; several runs stand side by side.", show_default=False
        ),
    ],
    form: Annotated[
        Literal["table", "md", "json", "html"], typer.Option("--format", help="How to write it.")
    ] = "table",
) -> None:
    """Write the report of a finished run or search, or compare the files of several runs of one task."""
    from compressor.render import html, markdown, terminal
    from compressor.report import Report, side_by_side

    texts = [_read(Path(folder)) for folder in folders]
    if len(texts) == 1 and _is_search(texts[0]):
        _search(texts[0], form)
        return
    reports = [(folder, Report.from_json(text)) for folder, text in zip(folders, texts, strict=True)]
    if len(reports) == 1:
        facts = reports[0][1]
        match form:
            case "json":
                emit_json_text(facts.to_json())
            case "md":
                emit(markdown.page(facts))
            case "html":
                emit(html.page(facts))
            case "table":
                emit_rich(*terminal.page(facts))
        return
    runs = side_by_side(reports)
    match form:
        case "json":
            emit_json_text(runs.model_dump_json(indent=2))
        case "md":
            emit(markdown.runs_page(runs))
        case "html":
            emit(html.runs_page(runs))
        case "table":
            emit_rich(*terminal.runs_page(runs))


def _is_search(text: str) -> bool:
    content = json_object(text)
    return content is not None and content.get("kind") == "search"


def _search(text: str, form: str) -> None:
    from compressor.render import html, markdown, terminal
    from compressor.report import SearchReport

    facts = SearchReport.from_json(text)
    match form:
        case "json":
            emit_json_text(facts.to_json())
        case "md":
            emit(markdown.search_page(facts))
        case "html":
            emit(html.search_page(facts))
        case _:
            emit_rich(*terminal.search_page(facts))


def _read(folder: Path) -> str:
    settle(folder)
    file = folder / "report.json" if folder.is_dir() else folder
    return read_text(file, ReportError, hint="give the --out folder of a finished run or search")
