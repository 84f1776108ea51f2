"""`compressor search`: say what the file must be, get the recipe and the file."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from compressor.cli.arguments import (
    DeviceOption,
    JsonOption,
    TaskOption,
    ThreadsOption,
    announce,
    axis_sizes,
    shape_option,
)
from compressor.cli.output import emit_json_text, emit_rich, say


def search(
    task: TaskOption,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the study and the results.")],
    goals: Annotated[
        str | None,
        typer.Argument(metavar="GOALS.yaml", help="Goals as a file; options count more.", show_default=False),
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option("--max-bytes", metavar="SIZE", help="Largest file, such as 600KB or 2MiB.")
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option("--max-drop", metavar="DROP", help="Largest loss of the metric, in its own unit.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option("--max-latency", metavar="TIME", help="Largest latency of a call, such as 5ms.")
    ] = None,
    max_flash: Annotated[
        str | None,
        typer.Option("--max-flash", metavar="SIZE", help="Largest program on a board, of `format: c` with a target."),
    ] = None,
    max_ram: Annotated[
        str | None, typer.Option("--max-ram", metavar="SIZE", help="Most RAM that it takes there.")
    ] = None,
    minimize: Annotated[
        Literal["bytes", "latency", "drop"] | None,
        typer.Option("--minimize", help="What is minimised within the goals. [default: bytes]", show_default=False),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="How long it may take: 90s, 5min, 2h. [default: 1h]"),
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", metavar="N", help="The same in hours.")] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", help="How many points may be tried, instead of a time.")
    ] = None,
    use: Annotated[
        list[str] | None,
        typer.Option("--use", metavar="MEANS", help="units, width, heads, rank, precision, retrain. Repeatable."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="WORD", help="Conversions: aaren, lama=MODULE. Repeatable."),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Of the file. [default: onnx]")
    ] = None,
    shape: Annotated[
        list[str] | None,
        shape_option("Fix an axis of the file, as accelerators want."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="Leave out what it does not take: ort-cpu, xnnpack, nnapi, coreml, qnn, ncnn, mnn, litert.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="FRONTIER", help="Try its points first: a name or a search's folder."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the search and of its recipes.")] = None,
    sampler: Annotated[
        Literal["guided", "random"] | None,
        typer.Option("--sampler", help="random is there to compare with. [default: guided]", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the study, if a storage holds several.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="A study that several machines share: postgresql://..."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, metavar="N", help="Workers that this command starts.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Let them work on a Ray cluster: HOST:PORT, `auto` or `local`."),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    json: JsonOption = False,
) -> None:
    """Search for the recipe whose file meets goals, and run it: units, heads, rank, precision, retraining.

    Exits with 0 if a file meets all goals and with 1 if none does. The same command goes on with an interrupted search.
    """
    from compressor.errors import UsageError
    from compressor.studies.search.goals import load

    if time is not None and hours is not None:
        raise UsageError("--time and --hours are the same", hint="give one of them")
    sizes = axis_sizes(shape or [])
    given: list[tuple[str, str, Any]] = [
        ("--max-bytes", "max_bytes", max_bytes),
        ("--max-drop", "max_drop", max_drop),
        ("--max-latency", "max_latency", max_latency),
        ("--max-flash", "max_flash", max_flash),
        ("--max-ram", "max_ram", max_ram),
        ("--minimize", "minimize", minimize),
        ("--time", "time", time),
        ("--hours", "time", None if hours is None else f"{hours}h"),
        ("--trials", "trials", trials),
        ("--use", "use", use),
        ("--allow", "allow", allow),
        ("--format", "exports", _export(format_, sizes)),
        ("--target", "target", target),
        ("--start", "start", start),
        ("--seed", "seed", seed),
        ("--sampler", "sampler", sampler),
        ("--name", "name", name),
    ]
    chosen = load(goals, [(option, key, value) for option, key, value in given if value not in (None, [])])
    announce(task)
    from compressor.cli.progress import Terminal
    from compressor.render import terminal
    from compressor.studies.search.place import Place
    from compressor.studies.search.search import search as find

    place = Place(task, Path(out), storage, device, threads, jobs, ray)
    with Terminal() as progress:
        report = find(chosen, place, progress=progress)
    if json:
        emit_json_text(report.to_json())
    else:
        emit_rich(*terminal.page(report))
        say(f"report: {Path(out) / 'report.html'}, {Path(out) / 'report.md'}, {Path(out) / 'report.json'}")
    if report.interrupted:
        raise typer.Exit(130)
    if report.chosen is None:
        raise typer.Exit(1)


def _export(format_: str | None, sizes: dict[str, int]) -> list[dict[str, Any]] | None:
    """The entry of `exports` that the options ask for; None if there are none."""
    if format_ is None and not sizes:
        return None
    return [{"format": format_ or "onnx", **({"shapes": sizes} if sizes else {})}]
