"""ONNX Runtime's own format, which its mobile builds load without the ONNX parser, and what such a build must hold.

The converter runs the optimizations of the whole graph beforehand. Beside the file lies a list of the operators and
types that it uses, from which ONNX Runtime's sources build a library that has nothing else.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, ClassVar, Literal

from compressor.errors import ExportError
from compressor.runtimes import child
from exporters.deliver import Candidate, deliver
from exporters.options import ConvertedOptions
from exporters.prepare import workshop
from exporters.source import onnx_file

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.formats import Job
    from compressor.report import Artifact

_CONVERTER = "onnxruntime.tools.convert_onnx_models_to_ort"


class Options(ConvertedOptions):
    """Options of `format: ort`."""

    ending: ClassVar[str] = "ort"
    in_onnx_runtime: ClassVar[bool] = True
    format: Literal["ort"] = "ort"
    """The recipe word of this exporter."""
    optimization: Literal["fixed", "runtime"] = "fixed"
    """`fixed`: optimized for any processor beforehand; `runtime`: also records what the phone may still optimize."""


def export(job: Job[Options]) -> Artifact:
    """Write `model` to `job.path` in ONNX Runtime's format, and its required operators beside it.

    Raises:
        ExportError: The model cannot be exported to ONNX, or the conversion fails.
        ParityError: The file disagrees with PyTorch.
        OutputError: The file cannot be written.
    """
    with workshop(job.path) as folder:
        source, facts = onnx_file(job, folder)
        converted_folder = folder / "converted"
        source_folder = folder / "source"
        source_folder.mkdir()
        shutil.copy(source, source_folder / "model.onnx")
        child.run(
            [
                sys.executable,
                "-m",
                _CONVERTER,
                str(source_folder),
                "--output_dir",
                str(converted_folder),
                "--enable_type_reduction",
                "--optimization_style",
                job.options.optimization.capitalize(),
            ],
            seconds=job.options.seconds,
            what=f"the conversion of {job.path.name}",
            environment={"OMP_NUM_THREADS": "1"},
        )
        converted = _only(converted_folder, "*.ort").rename(folder / job.path.name)
        operators = _only(converted_folder, "*.config").rename(folder / f"{job.path.name}.config")
        candidate = Candidate(
            path=converted,
            format="ort",
            extras={operators: "required operators and types, for a reduced build of ONNX Runtime"},
            operators=facts.operators,
            opset=facts.opset,
        )
        return deliver(candidate, job)


def _only(folder: Path, pattern: str) -> Path:
    matches = sorted(folder.glob(pattern))
    if len(matches) != 1:
        raise ExportError(
            f"the converter of ONNX Runtime wrote {len(matches)} files {pattern}", hint="try another version of it"
        )
    return matches[0]
