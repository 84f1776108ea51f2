"""`compressor draw`: figures of what a model or a recipe holds."""

import typer

from compressor.cli.draw import automaton, graph, lattice

app = typer.Typer(
    no_args_is_help=True, help="Draw the order of a model's units, the graphs of a recipe, or a run's automaton."
)
app.command("lattice")(lattice.lattice)
app.command("graph")(graph.graph)
app.command("automaton")(automaton.automaton)
