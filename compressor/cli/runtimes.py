"""`compressor runtimes`: runtimes of phones and their converters, where they are, and how to get them."""

from typing import Annotated, Any

import typer

from compressor.cli.arguments import JsonOption
from compressor.cli.output import columns, emit_json, emit_rich, say
from compressor.errors import CompressorError
from compressor.runtimes import environments

app = typer.Typer(
    no_args_is_help=True, help="Runtimes of phones and their converters: what is installed, and how to get it."
)


@app.command("list")
def list_(json: JsonOption = False) -> None:
    """Show every runtime, its versions, where it is, and whether it works.

    Each is started in its interpreter, which takes a second or two.
    """
    from compressor.cli.progress import Terminal

    with Terminal() as progress, progress.bar("examining", len(environments.RUNTIMES)) as bar:
        found = []
        for name in environments.RUNTIMES:
            found.append(examine(name))
            bar.advance()
    if json:
        emit_json(found)
        return
    rows = [(one["name"], one["state"], one["versions"], one["where"], one["purpose"]) for one in found]
    emit_rich(columns(("runtime", "", "versions", "where", "for"), rows))


@app.command("install")
def install(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Runtimes, as `list` shows them.")],
) -> None:
    """Install runtimes, each into its own environment in your cache folder, so that their pins clash with nothing."""
    from compressor.cli.progress import Terminal

    for name in names:
        environments.known(name)
    for name in names:
        with Terminal() as progress:
            runtime = environments.known(name)
            progress.say(f"installing {', '.join(runtime.requirements or runtime.npm)}")
            found = environments.install(name)
        say(f"{name}: {environments.versions(found)}, {found.where}")


def examine(name: str) -> dict[str, Any]:
    """What is known of a runtime: `state` is `ok`, `not installed` or `broken`."""
    runtime = environments.known(name)
    found = environments.locate(name)
    facts = {"name": name, "title": runtime.title, "purpose": runtime.purpose, "versions": "", "where": ""}
    if found is None:
        return {**facts, "state": "not installed", "where": f"compressor runtimes install {name}"}
    where = str(found.where) if found.own else "this environment"
    try:
        return {**facts, "state": "ok", "versions": environments.versions(found), "where": where}
    except CompressorError as error:
        return {**facts, "state": "broken", "where": f"{where}: {error.message.splitlines()[-1].strip()}"}
