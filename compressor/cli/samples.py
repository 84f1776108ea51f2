"""`compressor samples`: small real tasks that come with the package."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.arguments import JsonOption
from compressor.cli.output import columns, emit_json, emit_rich, say

app = typer.Typer(help="List and copy small real tasks, to start from.")


@app.command("list")
def list_samples(json: JsonOption = False) -> None:
    """List the samples that come with the package; a checkout has more."""
    from compressor.starting.samples import SAMPLES

    if json:
        emit_json([{"name": one.name, "purpose": one.purpose, "needs": one.needs} for one in SAMPLES.values()])
        return
    rows = [(one.name, one.purpose, one.needs or "nothing more") for one in SAMPLES.values()]
    emit_rich(columns(("name", "what it is", "needs"), rows))


@app.command()
def copy(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a sample, as `list` shows it.", show_default=False)
    ],
    to: Annotated[str, typer.Argument(metavar="[DIR]", help="Folder in which its folder is made.")] = ".",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Copy a sample's task, weights and data generator, to run and to change."""
    from compressor.starting import samples

    sample = samples.find(name)
    target = samples.copy(sample, Path(to), force=force)
    say(f"copied to {target}" + (f"; it needs `{sample.needs}`" if sample.needs else ""))
    say(f"try it: compressor run units-half --task {target / sample.task} --out runs/{sample.name} --quick")
