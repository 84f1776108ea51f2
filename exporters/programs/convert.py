"""Conversion of a traced program in the environment of its converter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.deliver import Candidate, describe

if TYPE_CHECKING:
    from compressor.runtimes.runtime_file import Worker
    from exporters.options import ProgramOptions
    from exporters.programs.trace import Format, Traced


_SCRIPTS = Path(__file__).parents[1] / "converters"


def convert(form: Format, traced: Traced, folder: Path, path: Path, options: ProgramOptions) -> list[Candidate]:
    """The float file and, if asked for, the quantized one, last."""
    import torch

    quantized = options.compresses
    places = {"float": folder / "float", "final": folder / "final"}
    for place in places.values():
        place.mkdir()
    target = (places["float"] if quantized else places["final"]) / path.name
    request: dict[str, Any] = {
        "program": str(folder / "program.pt2"),
        "target": str(target),
        "precision": options.precision,
        "quantized": str(places["final"] / path.name),
        "shapes": [[[axis, *sizes] for axis, sizes in axes.items()] for axes in traced.open_axes],
    }
    torch.export.save(traced.program, request["program"])
    hint = "`format: onnx` and `ort` have every operator; `seconds` is the time limit"
    answer, _ = _converter(form).ask("convert", seconds=options.seconds, hint=hint, **request)
    files = [target, Path(request["quantized"])] if quantized else [target]
    operators = {str(name): int(count) for name, count in answer["operators"].items()}
    return [_candidate(form, traced, file, operators) for file in files]


_converters: dict[str, Worker] = {}
"""Converters that run: most of a conversion's time goes into importing one."""


def _converter(form: Format) -> Worker:
    from compressor.runtimes.runtime_file import Worker

    running = _converters.get(form.name)
    if running is None or not running.alive:
        running = Worker(form.name, f"the converter of {form.title}", module=_SCRIPTS / f"{form.name}.py")
        _converters[form.name] = running
    return running


def _candidate(form: Format, traced: Traced, file: Path, operators: dict[str, int]) -> Candidate:
    from compressor.runtimes.steps import METADATA_KEY

    metadata = {} if traced.stream is None else {METADATA_KEY: traced.stream.model_dump_json()}
    beside = describe(file, form.name, form.name, traced.inputs, traced.outputs, metadata=metadata)
    return Candidate(
        file, form.name, extras={beside: "inputs, outputs and states"}, operators=operators, notes=traced.notes
    )
