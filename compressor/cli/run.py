"""`compressor run`: compress, retrain, export, measure, report."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.cli.arguments import (
    DeviceOption,
    LogOption,
    RecipeArgument,
    SetOption,
    TaskOption,
    ThreadsOption,
    announce,
)
from compressor.cli.output import emit_rich, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.report import Report


def run(
    recipe: RecipeArgument,
    task: TaskOption,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the results.", show_default=False)],
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Rehearse on a handful of batches, in seconds.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite another recipe's run in DIR.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew instead of going on with an unfinished run in DIR.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe/--no-probe",
            help="Probe what a replaced architecture could learn and its replacement cannot. [default: --probe]",
            show_default=False,
        ),
    ] = True,
    threads: ThreadsOption = 1,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Export the original again, also if an earlier run kept the same.")
    ] = False,
    log: LogOption = None,
) -> None:
    """Compress a model as RECIPE says, export it, and report what it cost and what it bought.

    Exits with 0 if every limit of the recipe is met and with 1 if one is missed or an export is refused.
    """
    from compressor.recipe import load
    from compressor.render import trackers

    # everything that can be said without torch is said before it is loaded
    chosen = load(recipe, overrides or ())
    if log is not None:
        trackers.need(log)
    announce(task)
    from compressor.cli.progress import Terminal
    from compressor.pipeline import processes
    from compressor.pipeline import run as pipeline
    from compressor.pipeline.environment import find_device
    from compressor.task import loading as tasks

    loaded, own = tasks.load(task), processes.own_device(find_device(device))
    with processes.joined(loaded, own) as team, Terminal() as progress:
        if isinstance(team, processes.Processes) and team.rank:
            team.assist(loaded.model().to(own).eval())
            return
        result = pipeline.run(
            chosen,
            loaded,
            Path(out),
            device=device,
            threads=threads,
            quick=quick,
            force=force,
            probes=probe,
            jobs=os.cpu_count() or 1,
            restart=restart,
            cache=not no_cache,
            command=_command(recipe, task, out, overrides or (), device, threads, quick=quick, probe=probe),
            progress=progress,
            team=team,
        )
    _show(result, Path(out))
    if log is not None:
        say(f"log: {trackers.send(log, result, Path(out))}")
    if result.refused or not result.limits_met:
        raise typer.Exit(1)


def _command(
    recipe: str,
    task: str,
    out: str,
    overrides: "Sequence[str]",
    device: str,
    threads: int,
    *,
    quick: bool,
    probe: bool,
) -> tuple[str, ...]:
    """The words that repeat the run, without what is at its default and without `--force`."""
    words = ["compressor", "run", recipe, "--task", task, "--out", out]
    for override in overrides:
        words += ["--set", override]
    words += [] if device == "auto" else ["--device", device]
    words += [] if threads == 1 else ["--threads", str(threads)]
    return (*words, *(["--quick"] if quick else []), *([] if probe else ["--no-probe"]))


def _show(result: "Report", out: Path) -> None:
    from compressor.render import terminal
    from compressor.render.sections.time import line

    emit_rich(*terminal.page(result))
    say(f"time: {line(result)}")
    say(f"report: {out / 'report.html'}, {out / 'report.md'}, {out / 'report.json'}")
