"""The Typer application: which commands there are. Each is a file beside this one; heavy imports are inside them."""

from functools import cache
from typing import Annotated, Any

import typer
from typer.main import get_command

from compressor.cli import (
    bench,
    check,
    demo,
    doctor,
    draw,
    export,
    frontiers,
    init,
    inspect,
    methods,
    probe,
    recipes,
    report,
    reproduce,
    run,
    runtimes,
    samples,
    search,
    sensitivity,
    study,
    validate,
    verify,
)
from compressor.cli.output import emit

app = typer.Typer(
    name="compressor",
    help="Shrink a trained PyTorch sequence model, export it, and measure what that cost on the exported file.",
    epilog="Start with: compressor init MODEL.py, which writes a task and a recipe that run as they are. "
    "No model at hand: compressor samples copy reber.",
    # rich help takes 0.15 s of the 0.4 s that help may take
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from compressor.version import VERSION

        emit(f"compressor {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Shrink a trained PyTorch sequence model, export it, and measure what that cost on the exported file."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


app.command("init", short_help="Write a task for a model.")(init.init)
app.command("run", short_help="Compress a model, export it, report.")(run.run)
app.command("search", short_help="Find the recipe whose file meets goals.")(search.search)
app.command("validate", short_help="Check recipes.")(validate.validate)
app.command("export", short_help="Convert a model as it is, prove the file, measure it.")(export.export)
app.command("inspect", short_help="Show a model and what of it can be pruned.")(inspect.inspect)
app.command("sensitivity", short_help="Measure how much each layer's units matter.")(sensitivity.sensitivity)
app.command("probe", short_help="Compare what two architectures can learn.")(probe.probe)
app.add_typer(recipes.app, name="recipes")
app.add_typer(methods.app, name="methods")
app.add_typer(frontiers.app, name="frontiers")
app.add_typer(samples.app, name="samples")
app.add_typer(draw.app, name="draw")
app.add_typer(study.app, name="study")
app.command("bench", short_help="Time exported files against each other.")(bench.bench)
app.command("check", short_help="Show what a phone's runtime takes of an ONNX file.")(check.check)
app.add_typer(runtimes.app, name="runtimes")
app.command("verify", short_help="Compare files on another processor with this one.")(verify.verify)
app.command("report", short_help="Show the report of a finished run.")(report.report)
app.command("demo", short_help="Run a finished run's files on a phone, in its browser.")(demo.demo)
app.command("reproduce", short_help="Run a finished run again and compare.")(reproduce.reproduce)
app.command("doctor", short_help="Check this installation.")(doctor.doctor)


@cache
def command() -> Any:
    """The application as one command, which is built of the signatures of all functions: once a process."""
    return get_command(app)
