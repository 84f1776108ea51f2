"""`compressor inspect`: what a task's model is made of, and what of it can be pruned."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli.arguments import JsonOption, TaskOption, announce
from compressor.cli.output import columns, emit, emit_json, emit_rich
from compressor.errors import CompressorError, MethodError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from compressor.nn.attention.parts import AttentionParts
    from compressor.report import Score


def inspect(
    task: TaskOption,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Compute the task's metric on the model.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a task's model: its layers, their size, what can be pruned and how, and on request the baseline metric."""
    announce(task)
    import torch

    from compressor.cli.progress import Terminal
    from compressor.pipeline.dry_run import try_out
    from compressor.surgery.attention.known import with_known
    from compressor.task.loading import load

    loaded = load(task)
    model = loaded.model()
    try_out(loaded, model, torch.device("cpu"))
    with Terminal() as progress, progress.bar("tracing the model", None):
        rows = modules(model, loaded.example(2, loaded.length))
    attention = attentions(model, with_known(model, loaded.attention))
    score = None
    if evaluate:
        from compressor.measure import accuracy

        with Terminal() as progress, progress.bar("evaluating", None):
            score = accuracy.score(loaded, model)
    if json:
        facts = {"modules": rows, "attention": attention, "total": _total(model), "score": _score_facts(score)}
        emit_json({"task": loaded.name} | facts)
    else:
        _show(rows, attention, _total(model), score)


def modules(model: "nn.Module", example: "tuple[Tensor, ...]") -> list[dict[str, Any]]:
    """One row for each module that owns parameters, a shared parameter under its first owner.

    `weights` is `default`, `named` (only if `targets` names it) or none; `units` is the number of hidden units that can
    be removed, or none with the reason under `units_refused`.
    """
    from compressor.nn.recurrent.layers import recurrent_modules

    total = _total(model)["parameters"]
    recurrent = recurrent_modules(model)
    prunable = _prunable(model)
    seen: set[int] = set()
    rows = []
    for name, module in model.named_modules():
        own = {key: value for key, value in module.named_parameters(recurse=False) if id(value) not in seen}
        seen.update(id(value) for value in own.values())
        if not own:
            continue
        count = sum(value.numel() for value in own.values())
        units, refused = _units(model, name, example) if name in recurrent else (None, None)
        prefix = f"{name}." if name else ""
        rows.append(
            {
                "name": name or "(model)",
                "type": type(module).__name__,
                "options": module.extra_repr(),
                "shapes": {key: list(value.shape) for key, value in own.items()},
                "parameters": count,
                "share": count / total,
                "weights": next((prunable[prefix + key] for key in own if prefix + key in prunable), None),
                "units": units,
                "units_refused": refused,
            }
        )
    return rows


def attentions(model: "nn.Module", declared: "Mapping[str, AttentionParts]") -> list[dict[str, Any]]:
    """One row for each multi-head attention, with the reason if its heads can never be removed."""
    from compressor.surgery.attention.sites import attention_sites

    return [
        {
            "name": site.name or "(model)",
            "kind": site.kind,
            "heads": site.heads,
            "head_width": site.head_width,
            "value_head_width": site.value_head_width,
            "refused": site.reason,
        }
        for site in attention_sites(model, declared).attentions
    ]


def _prunable(model: "nn.Module") -> dict[str, str]:
    """Parameter name -> whether `prune: weights` takes it by default or only if it is named."""
    from compressor.methods.targets import select_weights

    found = {}
    for targets, how in ((("*",), "named"), (None, "default")):
        try:
            names = select_weights(model, targets, (), "both").names
        except MethodError:  # the model has none of this kind
            continue
        found.update(dict.fromkeys(names, how))
    return found


def _units(model: "nn.Module", name: str, example: "tuple[Tensor, ...]") -> tuple[int | None, str | None]:
    """Hidden units of a recurrent module if one can be taken out, else the reason why not; the model is not changed."""
    from compressor.surgery.units import removal
    from compressor.surgery.units.choice import Amount

    try:
        removal.prune(model, {}, [example], names=[name], amount=Amount(count=1))
    except CompressorError as error:
        return None, error.message
    return int(model.get_submodule(name).hidden_size), None  # type: ignore[arg-type]


def _total(model: "nn.Module") -> dict[str, int]:
    from compressor.measure import size

    parameters, nonzeros = size.count(model)
    data_bytes = sum(value.numel() * value.element_size() for value in model.parameters())
    return {"parameters": parameters, "nonzeros": nonzeros, "bytes": data_bytes}


def _score_facts(score: "Score | None") -> dict[str, Any] | None:
    return score.model_dump(mode="json") if score is not None else None


def _show(
    rows: list[dict[str, Any]], attention: list[dict[str, Any]], total: dict[str, int], score: "Score | None"
) -> None:
    table = [
        (
            row["name"],
            f"{row['type']}({row['options']})",
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
    emit(f"\n{total['parameters']:,} parameters, {zeros:,} of them zero; {total['bytes'] / 1024:,.1f} KiB of weights")
    if score is not None:
        interval = f" ({score.interval.low:.4f} to {score.interval.high:.4f})" if score.interval else ""
        emit(f"{score.metric} {score.value:.4f}{interval}")


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
