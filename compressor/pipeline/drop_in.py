"""`compressor.export`: any model and its arguments to a file that is proven right, without a task."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from compressor.errors import UsageError
from compressor.formats import EXPORTERS, Job
from compressor.formats import export as write_file
from compressor.nn.converted.lssl import set_rate_scale
from compressor.pipeline import programs
from compressor.pipeline.trial.model import refuse_changing
from compressor.progress import Progress, Silent
from compressor.recipe.exports import options_of
from compressor.task.fixed_axes import fixed
from compressor.task.forwards import TorchForward
from compressor.task.guard import GuardedTask
from compressor.task.of_example import ExampleTask
from compressor.task.signature import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from compressor.report import Artifact

_CALLER = "compressor.export(...)"
"""The place of errors."""
_SILENT = Silent()


def export(
    model: nn.Module,
    args: Any,
    path: str | Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic: Literal["found"] | Mapping[str, Mapping[int, str]] | None = "found",
    lengths: tuple[int, int] | None = None,
    precision: str = "float32",
    calibration: Iterable[Any] | None = None,
    rate_scale: float | None = None,
    seed: int = 0,
    progress: Progress = _SILENT,
    **options: Any,
) -> Artifact:
    """Write a model to a file of any format that agrees with PyTorch at batch sizes and lengths that it never saw.

    Small programs that run an ONNX file, in five languages, go into `use/` beside it.

    Args:
        model: Any float32 module, trained, on any device; it is not changed. It is exported in evaluation mode.
        args: Positional arguments of `forward`: a tensor, or a tuple of anything. As in `torch.onnx.export`.
        path: Where the file goes; the ending chooses the format: `.onnx`, `.ort`, `.mnn`, `.tflite`, `.pte`,
            `.ncnn`, `.c`.
        kwargs: Keyword arguments of `forward`.
        dynamic: Which axes of the inputs are open: `found` by calling the model with larger inputs; or
            {input: {axis: "batch" or "time"}} for each tensor in its order; or None: every axis is fixed.
        lengths: Shortest and longest `time` at which the file must be right; found by calling the model, up to 512.
        precision: `float32`; `float16`, `int8` or `int4` if the format has it.
        calibration: Inputs on which the error of rounding is measured, each as `args`, or a dictionary of keyword
            arguments, or `compressor.Call`. By default variations of `args`: give real ones for rounding.
        rate_scale: Length of a step of the file's inputs in steps of training, such as 2 at half the sampling rate; of
            models whose recurrent layers `convert` made state-space layers (`to: lssl`).
        seed: Of the sizes and values at which the file is compared.
        progress: Told what goes on.
        options: Further options of the format, such as `opset=17`, `stream=True`, `programs=False`,
            `shapes={"batch": 1, "time": 32}`.

    Returns:
        The facts about the file: bytes, inputs, outputs, operators, and in `parity` the comparison with PyTorch.

    Raises:
        UsageError: The ending, an option or its value is unknown, or the model takes no `rate_scale`.
        TaskError: The model does not take the arguments, draws random numbers, or keeps a state.
        ExportError: The model cannot be exported.
        ParityError: The file disagrees with PyTorch; nothing is written.
        OutputError: The file cannot be written.
    """
    place = Path(path)
    chosen = options_of(_format_of(place), **options, **({} if precision == "float32" else {"precision": precision}))
    own = copy.deepcopy(model).cpu().eval()
    if rate_scale is not None:
        set_rate_scale(own, rate_scale)
    given = args if isinstance(args, tuple) else (args,)
    axes = None if dynamic == "found" else dynamic or {}
    task = GuardedTask(
        ExampleTask(own, Call(*given, **(kwargs or {})), axes=axes, lengths=lengths, samples=calibration), _CALLER
    )
    flat = task.model()
    refuse_changing(task, flat, TorchForward(flat, torch.device("cpu")), task.example(2, task.length))
    artifact = write_file(Job(flat, task, place, chosen, seed=seed, progress=progress))
    if chosen.has_programs:
        _, notes = programs.write(place.parent, [(artifact, fixed(task, chosen.fixed_shapes))], seed=seed)
        for note in notes:
            progress.say(note)
    return artifact


def _format_of(path: Path) -> str:
    endings = {exporter.options.ending: word for word, exporter in EXPORTERS.items()}
    for ending, word in endings.items():
        if path.name.endswith(f".{ending}"):
            return word
    raise UsageError(
        f"the ending of {path.name} names no format", hint=f"use one of {', '.join(f'.{end}' for end in endings)}"
    )
