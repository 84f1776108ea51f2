"""`compressor inspect`: what a task's model is made of, and what of it can be pruned."""

import re
from typing import Annotated, Any

import typer

from compressor.cli.arguments import JsonOption, TaskOption, announce
from compressor.cli.output import columns, emit, emit_json, emit_rich, tell

_USUAL = re.compile(r"\b(in|out)_features=|, (bias|batch_first)=True")
"""What a layer's own text says beside its sizes and what is unusual of it."""


def inspect(
    task: TaskOption,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Compute the task's metric on the model.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a task's model: its layers, their size, what can be pruned and how, and on request the baseline metric."""
    announce(task)
    from compressor.cli.progress import Terminal
    from compressor.studies.inspection import inspected
    from compressor.task.loading import load

    loaded = load(task)
    with Terminal() as progress:
        facts = inspected(loaded, evaluate=evaluate, progress=progress)
    if json:
        emit_json(facts)
    else:
        _show(facts["modules"], facts["attention"], facts["total"], facts["score"])


def _show(
    rows: list[dict[str, Any]], attention: list[dict[str, Any]], total: dict[str, int], score: dict[str, Any] | None
) -> None:
    table = [
        (
            row["name"],
            f"{row['type']}({_USUAL.sub('', row['options'])})",
            f"{row['parameters']:,}",
            f"{100 * row['share']:.1f} %",
            _how(row),
        )
        for row in rows
    ]
    header = ("module", "type", "parameters", "share", "can be pruned")
    emit_rich(columns(header, table, right=("parameters", "share")))
    if attention:
        emit("")
        sites = [
            (row["name"], str(row["heads"]), str(row["head_width"]), row["refused"] or "heads") for row in attention
        ]
        emit_rich(columns(("attention", "heads", "width", "can be pruned"), sites, right=("heads", "width")))
    zeros = total["parameters"] - total["nonzeros"]
    tell(f"\n{total['parameters']:,} parameters, {zeros:,} of them zero; {total['bytes'] / 1024:,.1f} KiB of weights")
    if score is not None:
        between = score["interval"]
        interval = f" ({between['low']:.4f} to {between['high']:.4f})" if between else ""
        emit(f"{score['metric']} {score['value']:.4f}{interval}")


def _how(row: dict[str, Any]) -> str:
    parts = []
    if row["units"] is not None:
        parts.append(f"units ({row['units']})")
    if row["weights"] == "default":
        parts.append("weights")
    elif row["weights"] == "named":
        parts.append("weights, if in `targets`")
    if row["units_refused"] is not None:
        parts.append(f"not units: {row['units_refused']}")
    return "; ".join(parts) or "nothing"
