"""ONNX Runtime's own format, which its mobile builds load without the ONNX parser, and what such a build must hold.

The converter runs the optimizations of the whole graph beforehand. Beside the file lies a list of the operators and
types that it uses, from which ONNX Runtime's sources build a library that has nothing else.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Literal

from compressor.errors import ExportError
from compressor.progress import Progress, Silent
from compressor.runtimes import child
from exporters.phone import Candidate, PhoneOptions, deliver, onnx_file, workshop

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from compressor.report import Artifact
    from compressor.task.contract import Task

_SILENT = Silent()
_CONVERTER = "onnxruntime.tools.convert_onnx_models_to_ort"


class Options(PhoneOptions):
    """Options of `format: ort`."""

    format: Literal["ort"] = "ort"
    """The recipe word of this exporter."""
    optimization: Literal["fixed", "runtime"] = "fixed"
    """`fixed`: optimized for any processor beforehand; `runtime`: also records what the phone may still optimize."""


def export(
    model: nn.Module, task: Task, path: Path, options: Options, *, progress: Progress = _SILENT, seed: int = 0
) -> Artifact:
    """Write `model` to `path` in ONNX Runtime's format, and its required operators beside it.

    Raises:
        ExportError: The model cannot be exported to ONNX, or the conversion fails.
        ParityError: The file disagrees with PyTorch.
        OutputError: The file cannot be written.
    """
    started = time.perf_counter()
    with workshop(path) as folder:
        source, facts = onnx_file(model, task, folder, options, seed=seed, progress=progress)
        made = folder / "made"
        given = folder / "given"
        given.mkdir()
        shutil.copy(source, given / "model.onnx")
        child.run(
            [
                sys.executable,
                "-m",
                _CONVERTER,
                str(given),
                "--output_dir",
                str(made),
                "--enable_type_reduction",
                "--optimization_style",
                options.optimization.capitalize(),
            ],
            seconds=options.seconds,
            what=f"the conversion of {path.name}",
            environment={"OMP_NUM_THREADS": "1"},
        )
        converted = _only(made, "*.ort").rename(folder / path.name)
        operators = _only(made, "*.config").rename(folder / f"{path.name}.config")
        candidate = Candidate(
            path=converted,
            format="ort",
            extras={operators: "required operators and types, for a reduced build of ONNX Runtime"},
            operators=facts.operators,
            opset=facts.opset,
        )
        return deliver(candidate, model, task, path, options, seed=seed, started=started)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ExportError(
            f"the converter of ONNX Runtime wrote {len(found)} files {pattern}", hint="try another version of it"
        )
    return found[0]
