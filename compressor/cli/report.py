"""`compressor report`: show a finished run again."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from compressor.cli.output import emit, emit_json_text, emit_rich
from compressor.errors import ReportError
from compressor.files import read_text


def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run.", show_default=False)],
    form: Annotated[
        Literal["table", "md", "json", "html"], typer.Option("--format", help="How to write it.")
    ] = "table",
) -> None:
    """Write the report of a finished run to standard output."""
    from compressor.report import Report

    path = Path(folder)
    file = path / "report.json" if path.is_dir() else path
    facts = Report.from_json(read_text(file, ReportError, hint="give the --out folder of a finished run"))
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
