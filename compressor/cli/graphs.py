"""`compressor graphs`: how well networks on random graphs learn a task."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli.arguments import JsonOption, RecipeArgument, SetOption, TaskOption
from compressor.cli.output import columns, emit, emit_json, emit_rich, say
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.progress import Progress
    from compressor.studies.graphs import Kind, Predictor, Results

app = typer.Typer(help="Draw random graphs, and study networks laid out on them.")


@app.callback()
def top() -> None:
    """Draw random graphs, and study networks laid out on them."""


@app.command()
def study(
    task: TaskOption,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.json", help="Results, written after each graph; goes on with it.")
    ],
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="ws|ba", help="Watts-Strogatz or Barabasi-Albert. [default: both] Repeatable."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, metavar="N", help="Graphs of each kind.")] = 30,
    epochs: Annotated[int, typer.Option("--epochs", min=1, metavar="N", help="Epochs of training.")] = 15,
    nodes: Annotated[str, typer.Option("--nodes", metavar="LEAST..MOST", help="Nodes of a graph.")] = "10..50",
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="NAME", help="The recurrent layer that is replaced. [default: the only one]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of graphs, weights and batches.")] = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, metavar="N", help="Processes. [default: one for each processor]")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Train on a Ray cluster: HOST:PORT, `auto` or `local`."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a task's model on many random graphs, and ask which properties of a graph tell how well it learns.

    In each graph's turn a stack with its structure takes the place of the recurrent layer, all weights of the model
    are drawn anew, and it is trained on labels from scratch. An interrupted study goes on where it stopped.
    """
    from pydantic import ValidationError

    least, most = read_range(nodes)
    if jobs is not None and ray not in (None, "local"):
        raise UsageError("--jobs says nothing to a cluster that runs already", hint="leave out --jobs")
    from compressor.cli.progress import Terminal
    from compressor.studies import graphs as graph_study

    try:
        options = graph_study.Study(
            task=task,
            kinds=tuple(kind or graph_study.KINDS),
            count=count,
            smallest=least,
            largest=most,
            epochs=epochs,
            target=target,
            seed=seed,
        )
    except ValidationError as error:
        raise UsageError(_said(error.errors()[0])) from error
    with Terminal() as progress:
        results = graph_study.study(options, out, jobs=jobs or os.cpu_count() or 1, ray=ray, progress=progress)
        predicted = _predictors(results, progress)
    say(f"wrote {out}")
    if json:
        emit_json(_facts(results, predicted))
    else:
        _show(results, predicted)


@app.command("draw")
def draw_graphs(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the figures go, one for each graph.")],
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Draw the graphs of a recipe's `random_graph` steps, and show what is known of them before anything is trained."""
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
        graph = step.draw(loaded.seed)
        target = out / f"graph{'' if len(steps) == 1 else index + 1}.svg"
        write_whole(target, svg(graph, f"{step.graph.replace('_', ' ')}, {step.nodes} nodes").encode())
        facts[f"step {index + 1}"] = properties(graph)
        say(f"wrote {target}")
    if json:
        emit_json(facts)
        return
    names = list(facts)
    rows = [(key, *(f"{facts[name][key]:.4g}" for name in names)) for key in facts[names[0]]]
    emit_rich(columns(("property", *names), rows, right=names))


def read_range(text: str) -> tuple[int, int]:
    """10 and 50 from `10..50`.

    Raises:
        UsageError: It is no range of whole numbers.
    """
    match = re.fullmatch(r"([0-9]+)\.\.([0-9]+)", text)
    if match is None:
        raise UsageError(f"--nodes takes two whole numbers, not `{text}`", hint="such as --nodes 10..50")
    return int(match[1]), int(match[2])


def _said(problem: Any) -> str:
    names = {"smallest": "the least of --nodes", "largest": "the most of --nodes", "kinds": "--kind"}
    place = names.get(str(problem["loc"][0])) if problem["loc"] else None
    text = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {text[0].lower()}{text[1:]}" if place else text


def _predictors(results: "Results", progress: "Progress") -> "list[Predictor]":
    """None where there are too few rows or scikit-learn is missing, which is said."""
    from compressor.studies import graphs as graph_study

    try:
        return graph_study.predictors(results, progress=progress)
    except UsageError as error:
        say(f"no predictors: {error.message}; {error.hint}")
        return []


def _correlations(results: "Results") -> dict[str, dict[str, float | None]]:
    """For all kinds together and, where there are several, for each of them."""
    from compressor.studies import graphs as graph_study

    kinds: list[Kind | None] = [None, *(results.study.kinds if len(results.study.kinds) > 1 else ())]
    return {kind or "all": graph_study.correlations(results.metrics(kind)) for kind in kinds}


def _facts(results: "Results", predicted: "list[Predictor]") -> dict[str, Any]:
    from dataclasses import asdict

    from compressor.studies import graphs as graph_study

    return {
        **results.model_dump(mode="json"),
        "summaries": {kind: asdict(summary) for kind, summary in graph_study.summaries(results).items()},
        "correlations": _correlations(results),
        "predictors": [asdict(predictor) for predictor in predicted],
    }


def _show(results: "Results", predicted: "list[Predictor]") -> None:
    from compressor.studies import graphs as graph_study

    rows = [
        (
            graph_study.KINDS[kind],
            f"{summary.count}",
            *(f"{part:.4f}" for part in (summary.mean, summary.median, summary.sd, summary.least, summary.largest)),
        )
        for kind, summary in graph_study.summaries(results).items()
    ]
    names = ("graphs", "mean", "median", "sd", "min", "max")
    emit(f"{results.metric} after {results.study.epochs} epochs from random weights\n")
    emit_rich(columns(("kind", *names), rows, right=names))
    for row in results.rows:
        if row.metric is None:
            emit(f"{graph_study.KINDS[row.kind]} {row.index} failed: {row.note}")
    found = _correlations(results)
    emit(f"\nPearson correlation with {results.metric}\n")
    header = [graph_study.KINDS.get(kind, kind) for kind in found]
    properties = list(next(iter(found.values())))
    cells = [(name, *(_correlation(part.get(name)) for part in found.values())) for name in properties]
    emit_rich(columns(("property", *header), cells, right=header))
    if predicted:
        emit(
            f"\nR^2 on graphs that were not seen, {graph_study.FOLDS}-fold cross-validation, "
            f"{graph_study.REPEATS} times over {len(results.metrics())} graphs; 0 is no better than the mean\n"
        )
        table = [(part.name, f"{part.r2:.3f}", f"{part.sd:.3f}") for part in predicted]
        emit_rich(columns(("predictor", "mean", "sd"), table, right=("mean", "sd")))


def _correlation(value: float | None) -> str:
    return "constant" if value is None else f"{value:.2f}"
