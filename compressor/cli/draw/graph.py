"""`compressor draw graph`: the random graphs of a recipe, before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.arguments import JsonOption, RecipeArgument, SetOption
from compressor.cli.output import columns, emit_json, emit_rich, say
from compressor.errors import UsageError


def graph(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the figures, one for each graph.")],
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Draw the graphs of a recipe's `random_graph` steps, and show their properties. Nothing is trained."""
    from compressor import recipe as recipes
    from compressor.files import write_whole, writing
    from compressor.methods.random_graph import RandomGraph
    from compressor.nn.graphs.properties import properties
    from compressor.render.graph import svg

    loaded = recipes.load(recipe, overrides or ())
    steps = [(index, step) for index, step in enumerate(loaded.steps) if isinstance(step, RandomGraph)]
    if not steps:
        raise UsageError(f"`{loaded.name}` has no `random_graph` step", hint="such as the recipe `random-graph`")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    facts = {}
    for index, step in steps:
        drawn = step.draw(loaded.seed)
        target = out / f"graph{'' if len(steps) == 1 else index + 1}.svg"
        write_whole(target, svg(drawn, f"{step.graph.replace('_', ' ')}, {step.nodes} nodes").encode())
        facts[f"step {index + 1}"] = properties(drawn)
        say(f"wrote {target}")
    if json:
        emit_json(facts)
        return
    names = list(facts)
    rows = [(key, *(f"{facts[name][key]:.4g}" for name in names)) for key in facts[names[0]]]
    emit_rich(columns(("property", *names), rows, right=names))
