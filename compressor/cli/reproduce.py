"""`compressor reproduce`: run a finished run again and compare."""

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.cli.arguments import JsonOption, RunArgument, TaskOption, announce
from compressor.cli.output import columns, emit, emit_json, emit_rich

if TYPE_CHECKING:
    from compressor.report import Reproduction

_WORDS = {"same": "the same", "within": "within the interval", "other": "OTHER"}


def reproduce(
    folder: RunArgument,
    task: TaskOption,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Keep the repetition in this folder.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the recipe of DIR again, with its seed and options, and compare bytes of files, metric and ratio.

    Exits with 0 if every file has the same bytes and every number is the same or within its interval, with 1 if not.
    What differs in versions, code, weights, data and machine is listed.
    """
    from compressor.recipe import load

    chosen = load(str(Path(folder) / "recipe.yaml"), ())
    announce(task)
    from compressor.cli.progress import Terminal
    from compressor.pipeline import reproducing
    from compressor.task import loading as tasks

    reproducing.read(Path(folder))  # an error of it comes before the task is loaded
    kept = nullcontext(out) if out is not None else tempfile.TemporaryDirectory()
    with Terminal() as progress, kept as place:
        result = reproducing.reproduce(
            Path(folder), chosen, tasks.load(task), Path(place), jobs=os.cpu_count() or 1, progress=progress
        )
    if json:
        emit_json({**result.model_dump(mode="json"), "reproduced": result.reproduced})
    else:
        _show(result)
    if not result.reproduced:
        raise typer.Exit(1)


def _show(result: "Reproduction") -> None:
    rows = [(file.name, "bytes", "", "", "the same" if file.same else "OTHER") for file in result.files]
    rows += [
        (one.file, one.name, f"{one.before:.6g}", f"{one.after:.6g}", _WORDS[one.outcome]) for one in result.numbers
    ]
    emit_rich(columns(("file", "", "before", "again", ""), rows, right=("before", "again")))
    if result.environment:
        emit("\nWhat differs in the environment:")
        for line in result.environment:
            emit(f"- {line}")
    if result.differing:
        emit("\nOther facts of the report that differ:")
        for line in result.differing:
            emit(f"- {line}")
    emit("\n✓ reproduced" if result.reproduced else "\n✗ not reproduced")
