"""`compressor inspect --sensitivity`: the map as a table, as files, and as ratios for a recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from compressor.cli.output import columns, emit, emit_json, emit_rich, say
from compressor.errors import CompressorError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.cli.progress import Terminal
    from compressor.report import Drop, LayerSensitivity, Sensitivity
    from compressor.studies.allocation import Allocation
    from compressor.studies.sensitivity import Prober
    from compressor.task.guard import GuardedTask

DEFAULT_RATIOS: Final = "0.25,0.5,0.75"
JSON_FILE: Final = "sensitivity.json"
SVG_FILE: Final = "sensitivity.svg"
_WITHIN_NOISE: Final = " ~"


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    targets: tuple[str, ...] | None
    ratios: tuple[float, ...]
    budget: float | None
    budget_of: Literal["units", "parameters"]
    max_drop: float | None
    out: Path | None
    cache: bool
    json: bool


@dataclass(frozen=True)
class _Together:
    """The allocation's layers pruned together, measured."""

    parameters: int
    value: float
    drop: "Drop"


def read_ratios(text: str) -> tuple[float, ...]:
    """Rising ratios from `0.25,0.5`.

    Raises:
        UsageError: It is no list of numbers above 0 and below 1.
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


def run(task: "GuardedTask", options: Options) -> None:
    """Measure the map or read it from the cache, then show, write and use it."""
    import torch

    from compressor.cli.progress import Terminal
    from compressor.methods.magnitude import Magnitude
    from compressor.studies.sensitivity import Prober

    step = Magnitude(prune="units", targets=options.targets, ratio=options.ratios[0])
    prober = Prober(task, task.model(), step, torch.device("cpu"))
    with Terminal() as progress:
        found = _sensitivity(prober, options, progress)
        # written before ratios are looked for: the measurement is kept even where there are none
        if options.out is not None:
            _write(found, options.out)
        if not options.json:
            _show(found)
        allocation = _allocation(prober, found, options)
        together = None
        if allocation is not None:
            with progress.bar("pruning all layers together", None):
                together = _together(prober, found, allocation.ratios)
    if options.json:
        emit_json(_facts(found, allocation, together))
    elif allocation is not None and together is not None:
        _show_allocation(found, allocation, together, options.targets)


def _sensitivity(prober: "Prober", options: Options, progress: "Terminal") -> "Sensitivity":
    from compressor.studies import sensitivity

    path = sensitivity.cache_file(prober, options.ratios)
    known = sensitivity.read_cache(path) if options.cache else None
    if known is not None:
        say(f"measured before, at {known.measured_at}, read from {path}; --no-cache measures again")
        return known
    measured = sensitivity.measure(prober, options.ratios, progress=progress)
    try:
        sensitivity.write_cache(path, measured)
    except CompressorError as error:  # the measurement is good without it
        say(f"not kept for the next time: {error.message}")
    return measured


def _write(sensitivity: "Sensitivity", out: Path) -> None:
    from compressor.files import write_whole, writing
    from compressor.render.sensitivity import svg

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_whole(out / JSON_FILE, (sensitivity.model_dump_json(indent=2) + "\n").encode())
    if any(layer.points for layer in sensitivity.layers):
        write_whole(out / SVG_FILE, svg(sensitivity).encode())
    say(f"wrote {out / JSON_FILE} and {SVG_FILE}")


def _show(sensitivity: "Sensitivity") -> None:
    score = sensitivity.score
    interval = f" ({score.interval.low:.4f} to {score.interval.high:.4f})" if score.interval else ""
    emit(f"{score.metric} {score.value:.4f}{interval} by `{sensitivity.function}`; below, how much worse it is with")
    emit("each layer pruned alone and nothing retrained\n")
    names = [f"{100 * ratio:g} % gone" for ratio in sensitivity.ratios]
    rows = [
        (layer.label, f"{layer.units}", *(_cell(layer, ratio) for ratio in sensitivity.ratios))
        for layer in sensitivity.layers
    ]
    emit_rich(columns(("layer", "units", *names), rows, right=("units", *names)))
    cells = [cell for row in rows for cell in row]
    if any(cell.endswith(_WITHIN_NOISE) for cell in cells):
        emit("\n~ within noise: the 95 % interval of the difference holds 0")
    for layer in sensitivity.layers:
        if layer.refused is not None:
            emit(f"\n{layer.label}: {layer.refused}")


def _cell(layer: "LayerSensitivity", ratio: float) -> str:
    drop = next((point.drop for point in layer.points if point.ratio == ratio), None)
    if drop is None:
        return "not possible"
    noise = drop.interval is not None and drop.interval.low <= 0.0 <= drop.interval.high
    return f"{drop.value:.4f}{_WITHIN_NOISE if noise else ''}"


def _allocation(prober: "Prober", sensitivity: "Sensitivity", options: Options) -> "Allocation | None":
    from compressor.studies import allocation

    if options.budget is None and options.max_drop is None:
        return None
    if options.budget is not None and options.budget_of == "parameters":
        return allocation.allocate_parameters(sensitivity, options.budget, options.max_drop, prober.parameters_left)
    return allocation.allocate(sensitivity, budget=options.budget, max_drop=options.max_drop, of=options.budget_of)


def _together(prober: "Prober", sensitivity: "Sensitivity", ratios: "Mapping[str, float]") -> _Together:
    from compressor.measure import accuracy, size

    model = prober.prune(ratios).state.model
    examined = prober.examine(model)
    drop = accuracy.drop(prober.examine(prober.model), examined)
    return _Together(size.count(model)[0], examined.score.value, drop)


def _show_allocation(
    sensitivity: "Sensitivity", allocation: "Allocation", together: _Together, targets: tuple[str, ...] | None
) -> None:
    emit(f"\n{_yaml(allocation, targets)}")
    layers = [layer for layer in sensitivity.layers if layer.points]
    units, removed = sum(layer.units for layer in layers), _removed(layers, allocation)
    say(
        f"{removed} of {units} units go ({100 * removed / units:.1f} %), and with them "
        f"{100 * (1 - together.parameters / sensitivity.parameters):.1f} % of the parameters"
    )
    say(
        f"before retraining, all together: {sensitivity.score.metric} {together.value:.4f}, a drop of "
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


def _removed(layers: "list[LayerSensitivity]", allocation: "Allocation") -> int:
    from compressor.studies.allocation import units_removed

    return sum(units_removed(layer, allocation.ratios[layer.modules[0]]) for layer in layers)


def _facts(sensitivity: "Sensitivity", allocation: "Allocation | None", together: _Together | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"sensitivity": sensitivity.model_dump(mode="json"), "allocation": None}
    if allocation is not None and together is not None:
        facts["allocation"] = {
            "ratios": allocation.ratios,
            "drop_by_the_curves": allocation.drop,
            "drop_together": together.drop.model_dump(mode="json"),
            "parameters": together.parameters,
        }
    return facts
