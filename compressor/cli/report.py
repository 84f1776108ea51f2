"""`compressor report`: show a finished run again."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from compressor.cli.output import emit, emit_rich
from compressor.errors import ReportError


def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run.", show_default=False)],
    form: Annotated[
        Literal["table", "md", "json", "html"], typer.Option("--format", help="How to write it.")
    ] = "table",
) -> None:
    """Write the report of a finished run to standard output."""
    from compressor.files.staged import settle
    from compressor.report import Report

    settle(Path(folder))
    facts = Report.from_json(_read(Path(folder)))
    match form:
        case "json":
            emit(facts.to_json())
        case "md":
            from compressor.render import markdown

            emit(markdown.page(facts))
        case "html":
            from compressor.render import html

            emit(html.page(facts))
        case "table":
            from compressor.render import terminal

            emit_rich(*terminal.page(facts))


def _read(folder: Path) -> str:
    path = folder / "report.json" if folder.is_dir() else folder
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReportError(f"there is no report at `{path}`", hint="give the --out folder of a finished run") from None
    except UnicodeDecodeError:
        raise ReportError(f"`{path}` is not UTF-8 text", hint="give the --out folder of a finished run") from None
    except OSError as error:
        raise ReportError(f"cannot read `{path}`: {error.strerror}") from error
