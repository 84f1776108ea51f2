"""The sensitivity map: what the metric loses with each layer pruned alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from compressor.errors import MethodError
from compressor.files import cache_folder, sha256, write_whole, writing
from compressor.measure import accuracy, size
from compressor.methods.base import Context, State, StepResult, loop_examples
from compressor.methods.magnitude import Magnitude
from compressor.methods.placing import carried_out
from compressor.methods.targets import select_layers
from compressor.nn.recurrent.layers import is_layer, parts
from compressor.pipeline.fingerprints import code_files, digest, of_model, versions
from compressor.progress import Silent
from compressor.report import LayerSensitivity, Sensitivity, SensitivityPoint
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.own_cells import find_own_cells
from compressor.task.forwards import TorchForward
from compressor.task.view import has_validation_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressor.measure.accuracy import Examined
    from compressor.progress import Progress
    from compressor.report import Drop
    from compressor.task.guard import GuardedTask

RATIOS: Final = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Together:
    """Layers pruned together, measured."""

    parameters: int
    value: float
    """Of the metric."""
    drop: Drop


class Prober:
    """Prunes a model by given ratios and evaluates it; nothing is retrained and the model is never changed."""

    def __init__(self, task: GuardedTask, model: nn.Module, step: Magnitude, device: torch.device) -> None:
        """`step` gives `targets`, `ignore` and how units are scored; its own ratio does not count."""
        self.task = task
        self.model = model.to(device).eval()
        self.step = step
        self.device = device
        self.own_cells = find_own_cells(model, *loop_examples(task))
        self.names = select_layers(model, step.targets, step.ignore, self.own_cells).names
        self.validation = has_validation_data(task)

    def examine(self, model: nn.Module) -> Examined:
        """The metric on the task's validation data, or on its evaluation data if it has no other."""
        return accuracy.examine(self.task, TorchForward(model, self.device), validation=self.validation)

    def prune(self, ratios: Mapping[str, float], **overrides: Any) -> StepResult:
        """The step with these ratios and `overrides` of its options; modules that are not named are left alone.

        Raises:
            MethodError: A ratio cannot be reached, or takes nothing.
        """
        every = {name or "*": ratios.get(name, 0.0) for name in self.names}
        own = {"ratio": None, "count": None, "scope": None, "ratios": every}
        options = self.step.model_dump() | own | overrides
        context = Context(self.task, self.model, self.device, torch.Generator().manual_seed(0), Silent(), quick=False)
        return carried_out(Magnitude.model_validate(options), State(self.model), context)

    def together(self, ratios: Mapping[str, float]) -> Together:
        """The metric with all layers pruned by these ratios at once, compared with the original's."""
        model = self.prune(ratios).state.model
        examined = self.examine(model)
        drop = accuracy.drop(self.examine(self.model), examined)
        return Together(size.count(model)[0], examined.score.value, drop)

    def parameters_left(self, ratios: Mapping[str, float]) -> int:
        """Parameters of the model pruned by these ratios."""
        return size.count(self.prune(ratios, compensate=False).state.model)[0]

    def sizes(self, name: str) -> list[int]:
        """Units of each layer and direction of a chosen module; features or channels of one that is not recurrent."""
        return [self.own_cells[name].units] if name in self.own_cells else _sizes(self.model.get_submodule(name))

    def tied(self, name: str, result: StepResult) -> list[str]:
        """Other chosen modules that lost units when only `name` was to lose some, in the model's order."""
        changed = [change.name for change in result.changes if change.action == "units removed"]
        return [
            other for other in self.names if other != name and any(each.startswith(f"{other}.") for each in changed)
        ]


def measure(prober: Prober, ratios: Sequence[float] = RATIOS, *, progress: Progress | None = None) -> Sensitivity:
    """Measure the metric with each chosen layer pruned alone at each of the rising `ratios`.

    Raises:
        CompressorError: The task's metric cannot be computed. A layer or ratio that cannot be pruned is not an error:
            its entry says why.
    """
    from compressor.version import VERSION

    layers: list[LayerSensitivity] = []
    with (progress or Silent()).bar("measuring sensitivity", 1 + len(prober.names) * len(ratios)) as bar:
        original = prober.examine(prober.model)
        bar.advance()
        for name in prober.names:
            if any(name in layer.modules for layer in layers):  # tied to one before
                bar.advance(len(ratios))
                continue
            layers.append(_layer(prober, name, ratios, original, bar.advance))
    return Sensitivity(
        version=VERSION,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        task=prober.task.name,
        function="validate" if prober.validation else "evaluate",
        options=_options(prober.step),
        ratios=tuple(ratios),
        score=original.score,
        parameters=size.count(prober.model)[0],
        layers=tuple(layers),
    )


def _layer(
    prober: Prober, name: str, ratios: Sequence[float], original: Examined, advance: Callable[[int, str], None]
) -> LayerSensitivity:
    modules = [name]
    points: list[SensitivityPoint] = []
    refused = None
    for ratio in ratios:
        try:
            result = prober.prune(dict.fromkeys(modules, ratio))
            tied = prober.tied(name, result) if len(modules) == 1 else []
            if tied:
                modules = sorted([name, *tied], key=prober.names.index)
                result = prober.prune(dict.fromkeys(modules, ratio))
        except MethodError as error:
            refused = error.message
        else:
            points.append(_point(prober, modules, ratio, result.state.model, original))
        advance(1, name)
    sizes = tuple(part for module in modules for part in prober.sizes(module))
    return LayerSensitivity(modules=tuple(modules), sizes=sizes, points=tuple(points), refused=refused)


def _point(
    prober: Prober, modules: Sequence[str], ratio: float, model: nn.Module, original: Examined
) -> SensitivityPoint:
    examined = prober.examine(model)
    sizes = (part for module in modules for part in prober.sizes(module))
    return SensitivityPoint(
        ratio=ratio,
        units_removed=sum(Amount(ratio).removed_of(part) for part in sizes),
        parameters=size.count(model)[0],
        score=examined.score,
        drop=accuracy.drop(original, examined),
    )


def _sizes(module: nn.Module) -> list[int]:
    """Units of each layer and direction of a recurrent module; features or channels of another one."""
    if is_layer(module):
        return [module.hidden_size] * len(parts(module))
    for attribute in ("hidden_size", "out_features", "out_channels"):
        if hasattr(module, attribute):
            return [int(getattr(module, attribute))]
    raise MethodError(f"`{type(module).__name__}` has no units")


def cache_file(prober: Prober, ratios: Sequence[float]) -> Path:
    """Where the map of exactly this model, task, step and these ratios is kept."""
    return cache_folder() / "sensitivity" / f"{_key(prober, ratios)}.json"


def read_cache(path: Path) -> Sensitivity | None:
    """The map that is kept there; None if there is none that can be read."""
    try:
        return Sensitivity.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_cache(path: Path, sensitivity: Sensitivity) -> None:
    """Keep a map.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, sensitivity.model_dump_json(indent=2).encode())


def _key(prober: Prober, ratios: Sequence[float]) -> str:
    """Hash of the weights, the model's structure, the task's code, the step's options, the ratios and the versions.

    The data that the task reads is not looked at.
    """
    code = {path.name: sha256(path) for path in code_files(Path(prober.task.file))}
    facts = [prober.task.name, of_model(prober.model), code, versions(), _options(prober.step), list(ratios)]
    limit = [] if prober.task.limit is None else [prober.task.limit]  # of an evaluation on a slice
    return digest(*facts, *limit)[:32]


def _options(step: Magnitude) -> dict[str, object]:
    return step.model_dump(mode="json", exclude={"method", "ratio", "ratios", "count"}, exclude_none=True)
