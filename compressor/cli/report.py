"""`compressor report`: show a finished run or search again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from compressor.cli.arguments import LogOption
from compressor.cli.output import emit, emit_json_text, emit_rich, say
from compressor.errors import ReportError, UsageError
from compressor.files import json_object, read_text
from compressor.files.staged import LOG_FILE, REPORT_FILE, UNFINISHED, settle

if TYPE_CHECKING:
    from compressor.render.pages import Facts
    from compressor.render.trackers import Tracker


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
    log: LogOption = None,
) -> None:
    """Write the report of a finished run or search, or compare the files of several runs of one task.

    With --log, send that of a run to a tracker instead.
    """
    from compressor.render import html, markdown, terminal

    facts = _facts(folders)
    if log is not None:
        _log(log, facts, folders)
        return
    match form:
        case "json":
            emit_json_text(facts.to_json())
        case "md":
            emit(markdown.page(facts))
        case "html":
            emit(html.page(facts))
        case "table":
            emit_rich(*terminal.page(facts))


def _log(log: "Tracker", facts: "Facts", folders: list[str]) -> None:
    from compressor.render import trackers
    from compressor.report import Report

    if not isinstance(facts, Report):
        raise UsageError("`--log` takes the folder of one run", hint="call it once for each run")
    say(f"log: {trackers.send(log, facts, Path(folders[0]))}")


def _facts(folders: list[str]) -> "Facts":
    from compressor.report import Report, SearchReport, side_by_side

    texts = [_read(Path(folder)) for folder in folders]
    if len(texts) == 1 and (json_object(texts[0]) or {}).get("kind") == "search":
        return SearchReport.from_json(texts[0])
    reports = [(folder, Report.from_json(text)) for folder, text in zip(folders, texts, strict=True)]
    return reports[0][1] if len(reports) == 1 else side_by_side(reports)


def _read(folder: Path) -> str:
    settle(folder)
    file = folder / REPORT_FILE if folder.is_dir() else folder
    if not file.exists() and (folder / UNFINISHED).is_dir():
        raise ReportError(
            f"`{folder}` holds an unfinished run and no finished one",
            hint=f"the command that began it goes on from there; see {folder / UNFINISHED / LOG_FILE}",
        )
    return read_text(file, ReportError, hint="give the --out folder of a finished run or search")
