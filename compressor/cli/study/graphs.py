"""`compressor study graphs`: how well networks on random graphs learn a task."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli.arguments import JsonOption, TaskOption
from compressor.cli.output import columns, emit, emit_json, emit_rich, say
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.progress import Progress
    from compressor.studies.graphs.analysis import Predictor
    from compressor.studies.graphs.facts import Kind, Results


def graphs(
    task: TaskOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE.json", help="Results, written after each graph; continues an unfinished file."
        ),
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

    For each graph, a stack with its structure replaces the recurrent layer, all weights of the model are initialised
    again, and the model is trained on labels from scratch. An interrupted study continues where it stopped.
    """
    from pydantic import ValidationError

    least, most = read_range(nodes)
    if jobs is not None and ray not in (None, "local"):
        raise UsageError("--jobs has no effect with --ray", hint="leave out --jobs")
    from compressor.cli.progress import Terminal
    from compressor.studies.graphs.facts import KINDS, Study
    from compressor.studies.graphs.study import study

    try:
        options = Study(
            task=task,
            kinds=tuple(kind or KINDS),
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
        results = study(options, out, jobs=jobs or os.cpu_count() or 1, ray=ray, progress=progress)
        predicted = _predictors(results, progress)
    say(f"wrote {out}")
    if json:
        emit_json(_facts(results, predicted))
    else:
        _show(results, predicted)


def read_range(text: str) -> tuple[int, int]:
    """10 and 50 from `10..50`.

    Raises:
        UsageError: It is not a range of whole numbers.
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
    """Empty if there are too few rows or scikit-learn is missing; a message says so."""
    from compressor.studies.graphs import analysis

    try:
        return analysis.predictors(results, progress=progress)
    except UsageError as error:
        say(f"no predictors: {error.message}; {error.hint}")
        return []


def _correlations(results: "Results") -> dict[str, dict[str, float | None]]:
    """For all kinds together and, if there are several, for each of them."""
    from compressor.studies.graphs import analysis

    kinds: list[Kind | None] = [None, *(results.study.kinds if len(results.study.kinds) > 1 else ())]
    return {kind or "all": analysis.correlations(results.metrics(kind)) for kind in kinds}


def _facts(results: "Results", predicted: "list[Predictor]") -> dict[str, Any]:
    from dataclasses import asdict

    from compressor.studies.graphs import analysis

    return {
        **results.model_dump(mode="json"),
        "summaries": {kind: asdict(summary) for kind, summary in analysis.summaries(results).items()},
        "correlations": _correlations(results),
        "predictors": [asdict(predictor) for predictor in predicted],
    }


def _show(results: "Results", predicted: "list[Predictor]") -> None:
    from compressor.studies.graphs import analysis
    from compressor.studies.graphs.facts import KINDS

    rows = [
        (
            KINDS[kind],
            f"{summary.count}",
            *(f"{part:.4f}" for part in (summary.mean, summary.median, summary.sd, summary.least, summary.largest)),
        )
        for kind, summary in analysis.summaries(results).items()
    ]
    names = ("graphs", "mean", "median", "sd", "min", "max")
    emit(f"{results.metric} after {results.study.epochs} epochs from random weights\n")
    emit_rich(columns(("kind", *names), rows, right=names))
    for row in results.rows:
        if row.metric is None:
            emit(f"{KINDS[row.kind]} {row.index} failed: {row.note}")
    found = _correlations(results)
    emit(f"\nPearson correlation with {results.metric}\n")
    header = [KINDS.get(kind, kind) for kind in found]
    properties = list(next(iter(found.values())))
    cells = [(name, *(_correlation(part.get(name)) for part in found.values())) for name in properties]
    emit_rich(columns(("property", *header), cells, right=header))
    if predicted:
        emit(
            f"\nR^2 on graphs that were not seen, {analysis.FOLDS}-fold cross-validation, "
            f"{analysis.REPEATS} times over {len(results.metrics())} graphs; 0 is no better than the mean\n"
        )
        table = [(part.name, f"{part.r2:.3f}", f"{part.sd:.3f}") for part in predicted]
        emit_rich(columns(("predictor", "mean", "sd"), table, right=("mean", "sd")))


def _correlation(value: float | None) -> str:
    return "constant" if value is None else f"{value:.2f}"
