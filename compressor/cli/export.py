"""`compressor export`: a task's model as it is, in any format, proven and measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from compressor.cli.arguments import JsonOption, TaskOption, ThreadsOption, announce
from compressor.cli.output import columns, emit_json, emit_rich, say, tell
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.formats import ExportOptions
    from compressor.report import ExportedFile, ExportReport


def export(
    task: TaskOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files.", show_default=False)],
    formats: Annotated[
        str, typer.Option("--format", metavar="WORD,WORD...", help="onnx, ort, mnn, ncnn, litert, executorch, c.")
    ] = "onnx",
    precision: Annotated[
        Literal["float32", "float16", "int8", "int4"],
        typer.Option("--precision", help="What weights are stored in, if the format has it."),
    ] = "float32",
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the formats, such as stream=true or shapes.batch=1. Repeatable.",
        ),
    ] = None,
    metric_drop: Annotated[
        float | None,
        typer.Option(
            "--metric-drop", min=0.0, metavar="DROP", help="What rounding may cost of the metric, in its own unit."
        ),
    ] = None,
    rate_scale: Annotated[
        float | None,
        typer.Option(
            "--rate-scale",
            metavar="SCALE",
            help="Length of a step of the task's data in steps of training, such as 2 at half the sampling rate. Of "
            "state-space layers.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Compute the metric and the latency of each file.")
    ] = True,
    threads: ThreadsOption = 1,
    json: JsonOption = False,
) -> None:
    """Convert a task's model, compare each file with PyTorch at sizes that the export never saw, and measure it.

    Nothing is pruned or trained. In Python, `compressor.export(model, args, "model.onnx")` needs no task. Exits with 1
    if a format is refused.
    """
    # everything that can be said without torch is said before it is loaded
    chosen = _options(formats, precision, options or [])
    announce(task)
    from compressor.cli.progress import Terminal
    from compressor.pipeline.export_alone import REPORT_FILE, export_alone
    from compressor.task.loading import load

    with Terminal() as progress:
        report = export_alone(
            load(task),
            chosen,
            out,
            measure=measure,
            metric_drop=metric_drop,
            rate_scale=rate_scale,
            threads=threads,
            progress=progress,
        )
    if json:
        emit_json(report.model_dump(mode="json"))
    else:
        _show(report)
        say(f"written: {', '.join(str(out / file.artifact.path) for file in report.files)}, {out / REPORT_FILE}")
    if report.refused:
        raise typer.Exit(1)


def _options(formats: str, precision: str, settings: list[str]) -> "list[ExportOptions]":
    """Options of each format; raises `UsageError` if a format does not have one."""
    from compressor.recipe.exports import options_of

    given: dict[str, Any] = {"precision": precision} if precision != "float32" else {}
    for text in settings:
        from compressor.recipe import overrides  # loads all that a recipe may hold: 0.3 s

        override = overrides.read(text)
        *groups, key = override.keys
        inside = given
        for group in groups:
            inside = inside.setdefault(group, {})
            if not isinstance(inside, dict):
                raise UsageError(f"`--set {text}`: `{group}` is set to a value already")
        inside[key] = override.value
    words = [word.strip() for word in formats.split(",")]
    if len(set(words)) != len(words):
        raise UsageError(f"--format names a format twice: {formats}")
    return [options_of(word, **given) for word in words]


def _show(report: "ExportReport") -> None:
    from compressor.render import format as form

    rows = [_row(file) for file in report.files]
    header = ("file", "bytes", "largest difference from PyTorch", report.score.metric if report.score else "", "p50")
    emit_rich(columns(header if report.score else header[:3], [row if report.score else row[:3] for row in rows]))
    if report.score is not None:
        tell(f"\n{report.score.metric} of the model in PyTorch: {form.metric(report.score.value)}")
    if report.remark:
        tell(report.remark)
    for skip in report.refused:
        tell(f"{skip.name} is refused: {skip.reason}")
    for note in report.notes:
        tell(f"note: {note}")


def _row(file: "ExportedFile") -> tuple[str, ...]:
    from compressor.render import format as form

    artifact = file.artifact
    points = len({(point.batch, point.length) for point in artifact.parity.points})
    proof = f"{form.error(artifact.parity.largest_error)} at {form.plural(points, 'size')}"
    if artifact.quantization is not None:
        proof += f"; by rounding {form.percent(artifact.quantization.error)}"
    score = form.metric(file.score.value) if file.score else ""
    return artifact.path, form.size(artifact.bytes), proof, score, form.median(file.latency)
