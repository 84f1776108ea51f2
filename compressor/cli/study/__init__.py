"""`compressor study`: many trainings that answer a question."""

import typer

from compressor.cli.study import graphs

app = typer.Typer(no_args_is_help=True, help="Train many models to answer a question.")
app.command("graphs")(graphs.graphs)


@app.callback()
def top() -> None:
    """Train many models to answer a question."""
