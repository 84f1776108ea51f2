"""`compressor sensitivity`: how much each layer's units matter to the metric, and ratios for a recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from compressor.cli.arguments import JsonOption, TaskOption, announce
from compressor.cli.output import columns, emit, emit_json, emit_rich, say, tell
from compressor.errors import CompressorError, UsageError

if TYPE_CHECKING:
    from compressor.cli.progress import Terminal
    from compressor.report import LayerSensitivity, Sensitivity
    from compressor.studies.allocation import Allocation
    from compressor.studies.sensitivity import Prober, Together

DEFAULT_RATIOS: Final = "0.25,0.5,0.75"
JSON_FILE: Final = "sensitivity.json"
SVG_FILE: Final = "sensitivity.svg"
_WITHIN_NOISE: Final = " ~"

Counted = Literal["units", "parameters"]


@dataclass(frozen=True)
class _Goal:
    """What the ratios have to reach."""

    budget: float | None
    counted: Counted
    max_drop: float | None


def sensitivity(
    task: TaskOption,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--targets", metavar="GLOB", help="Layers to measure, such as Linear ones. [default: recurrent] Repeatable."
        ),
    ] = None,
    ratios: Annotated[str, typer.Option("--ratios", metavar="R,R...", help="Ratios to measure.")] = DEFAULT_RATIOS,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", metavar="RATIO", help="Give ratios for a recipe that remove this fraction at the least loss."
        ),
    ] = None,
    budget_of: Annotated[
        Counted | None,
        typer.Option("--budget-of", help="What --budget counts. [default: units]", show_default=False),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0.0,
            metavar="DROP",
            help="Largest sum of the layers' losses of the metric, before retraining.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help=f"Write {JSON_FILE} and {SVG_FILE} into this folder."),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Measure again, for example after the task's data changed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure how much worse the metric is with each layer's units pruned alone.

    With --budget or --max-drop, give a ratio for each layer, as a step to paste into a recipe.
    """
    if budget is not None and not 0.0 < budget < 1.0:
        raise UsageError(f"--budget is {budget:g}, expected a fraction above 0 and below 1")
    if budget_of is not None and budget is None:
        raise UsageError("`--budget-of` belongs to --budget", hint="add --budget 0.5")
    levels = read_ratios(ratios)
    chosen = tuple(targets) if targets else None
    goal = _Goal(budget, budget_of or "units", max_drop)
    # everything that can be said without torch is said before it is loaded
    announce(task)
    import torch

    from compressor.cli.progress import Terminal
    from compressor.methods.magnitude import Magnitude
    from compressor.studies.sensitivity import Prober
    from compressor.task.loading import load

    loaded = load(task)
    step = Magnitude(prune="units", targets=chosen, ratio=levels[0])
    prober = Prober(loaded, loaded.model(), step, torch.device("cpu"))
    with Terminal() as progress:
        measured = _measured(prober, levels, progress, cache=not no_cache)
        # written before ratios are looked for: the measurement is kept even if there are none
        if out is not None:
            _write(measured, out)
        if not json:
            _show(measured)
        allocation = _allocation(prober, measured, goal)
        together = None
        if allocation is not None:
            with progress.bar("pruning all layers together", None):
                together = prober.together(allocation.ratios)
    if json:
        emit_json(_facts(measured, allocation, together))
    elif allocation is not None and together is not None:
        _show_allocation(measured, allocation, together, chosen)


def read_ratios(text: str) -> tuple[float, ...]:
    """Rising ratios from `0.25,0.5`.

    Raises:
        UsageError: It is not a list of numbers above 0 and below 1.
    """
    try:
        ratios = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        ratios = ()
    if not ratios or not all(0.0 < ratio < 1.0 for ratio in ratios):
        raise UsageError(
            f"--ratios takes numbers above 0 and below 1 with commas between, not `{text}`",
            hint=f"such as --ratios {DEFAULT_RATIOS}",
        )
    return ratios


def _measured(prober: "Prober", ratios: tuple[float, ...], progress: "Terminal", *, cache: bool) -> "Sensitivity":
    from compressor.studies import sensitivity as study

    path = study.cache_file(prober, ratios)
    known = study.read_cache(path) if cache else None
    if known is not None:
        say(f"measured before, at {known.measured_at}, read from {path}; --no-cache measures again")
        return known
    measured = study.measure(prober, ratios, progress=progress)
    try:
        study.write_cache(path, measured)
    except CompressorError as error:  # the measurement is good without it
        say(f"not kept for the next time: {error.message}")
    return measured


def _allocation(prober: "Prober", measured: "Sensitivity", goal: _Goal) -> "Allocation | None":
    from compressor.studies import allocation

    if goal.budget is None and goal.max_drop is None:
        return None
    if goal.budget is not None and goal.counted == "parameters":
        return allocation.allocate_parameters(measured, goal.budget, goal.max_drop, prober.parameters_left)
    return allocation.allocate(measured, budget=goal.budget, max_drop=goal.max_drop, of=goal.counted)


def _write(measured: "Sensitivity", out: Path) -> None:
    from compressor.files import write_whole, writing
    from compressor.render.sensitivity import svg

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_whole(out / JSON_FILE, (measured.model_dump_json(indent=2) + "\n").encode())
    if any(layer.points for layer in measured.layers):
        write_whole(out / SVG_FILE, svg(measured).encode())
    say(f"wrote {out / JSON_FILE} and {SVG_FILE}")


def _show(measured: "Sensitivity") -> None:
    score = measured.score
    interval = f" ({score.interval.low:.4f} to {score.interval.high:.4f})" if score.interval else ""
    tell(f"{score.metric} {score.value:.4f}{interval} by `{measured.function}`; below, how much worse it is with")
    tell("each layer pruned alone and nothing retrained\n")
    names = [f"{100 * ratio:g} % gone" for ratio in measured.ratios]
    rows = [
        (layer.label, f"{layer.units}", *(_cell(layer, ratio) for ratio in measured.ratios))
        for layer in measured.layers
    ]
    emit_rich(columns(("layer", "units", *names), rows, right=("units", *names)))
    if any(cell.endswith(_WITHIN_NOISE) for row in rows for cell in row):
        tell("\n~ within noise: the 95 % interval of the difference includes 0")
    for layer in measured.layers:
        if layer.refused is not None:
            tell(f"\n{layer.label}: {layer.refused}")


def _cell(layer: "LayerSensitivity", ratio: float) -> str:
    drop = next((point.drop for point in layer.points if point.ratio == ratio), None)
    if drop is None:
        return "not possible"
    noise = drop.interval is not None and drop.interval.low <= 0.0 <= drop.interval.high
    return f"{drop.value:.4f}{_WITHIN_NOISE if noise else ''}"


def _show_allocation(
    measured: "Sensitivity", allocation: "Allocation", together: "Together", targets: tuple[str, ...] | None
) -> None:
    from compressor.studies.allocation import units_removed

    emit(f"\n{_yaml(allocation, targets)}")
    layers = [layer for layer in measured.layers if layer.points]
    units = sum(layer.units for layer in layers)
    removed = sum(units_removed(layer, allocation.ratios[layer.modules[0]]) for layer in layers)
    say(
        f"{removed} of {units} units go ({100 * removed / units:.1f} %), and with them "
        f"{100 * (1 - together.parameters / measured.parameters):.1f} % of the parameters"
    )
    say(
        f"before retraining, all together: {measured.score.metric} {together.value:.4f}, a drop of "
        f"{together.drop.value:.4f} (the layers' own drops add up to {allocation.drop:.4f})"
    )


def _yaml(allocation: "Allocation", targets: tuple[str, ...] | None) -> str:
    """The step of a recipe."""
    from compressor.plain_yaml import dump

    step: dict[str, Any] = {"method": "magnitude", "prune": "units"}
    if targets is not None:
        step["targets"] = list(targets)
    step["ratios"] = {name or "*": ratio for name, ratio in allocation.ratios.items()}
    lines = dump([step], width=1000).splitlines()
    return "\n".join(["steps:", *(f"  {line}" for line in lines)])


def _facts(measured: "Sensitivity", allocation: "Allocation | None", together: "Together | None") -> dict[str, Any]:
    facts: dict[str, Any] = {"sensitivity": measured.model_dump(mode="json"), "allocation": None}
    if allocation is not None and together is not None:
        facts["allocation"] = {
            "ratios": allocation.ratios,
            "drop_by_the_curves": allocation.drop,
            "drop_together": together.drop.model_dump(mode="json"),
            "parameters": together.parameters,
        }
    return facts
