"""Files of MNN (`.mnn`), converted from ONNX by MNN's own converter and checked in MNN.

Known of MNN 3.6: an LSTM whose states are no inputs crashes the converter unless it keeps its own LSTM; a
GRU kept that way is up to five times slower than the loop that it makes otherwise; an RNN of relu is computed as one
of tanh; an unrolled LSTM is wrong unless its optimizer is off. Hence the ways that are tried, each checked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from compressor.runtimes import child, environments
from exporters.deliver import Candidate, Way, by_first_right_way, describe
from exporters.options import FixedLengthOptions
from exporters.prepare import workshop
from exporters.source import onnx_file, remedy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from compressor.formats import Job
    from compressor.report import Artifact

# The converter alone: MNN's console script, and the module behind it, install a package that reports use to its makers.
_CONVERT = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
_LOOPS = ("as its converter does by default", ())
_OWN_CELLS = ("with its own recurrent layers", ("--useOriginRNNImpl",))
_UNOPTIMIZED = ("without its optimizer", ("--useOriginRNNImpl", "--optimizeLevel", "0"))


class Options(FixedLengthOptions):
    """Options of `format: mnn`."""

    ending: ClassVar[str] = "mnn"
    format: Literal["mnn"] = "mnn"
    """The recipe word of this exporter."""


def export(job: Job[Options]) -> Artifact:
    """Write `model` to `job.path` in MNN's format, and its description beside it.

    Raises:
        ExportError: MNN is not installed, or its converter or MNN itself fails on the model.
        ParityError: What MNN computes disagrees with PyTorch.
        OutputError: The file cannot be written.
    """
    python = environments.need("mnn").python
    with workshop(job.path) as folder:
        source, facts = onnx_file(job, folder, length=job.options.length)

        def way(name: str, arguments: Sequence[str]) -> Way:
            return Way(name, lambda inside: _convert(source, inside / job.path.name, python, arguments, job.options))

        ways = [_OWN_CELLS, _LOOPS] if "LSTM" in facts.operators else [_LOOPS, _OWN_CELLS]
        if not {"LSTM", "GRU", "RNN"} & set(facts.operators):
            ways = [_LOOPS]  # there is nothing that the other one would keep
        return by_first_right_way(
            [way(*chosen) for chosen in (*ways, _UNOPTIMIZED)],
            folder,
            job,
            remedy=remedy(source, "MNN", job.options, unrolls=True),
        )


def _convert(source: Path, target: Path, python: Path, arguments: Sequence[str], options: Options) -> Candidate:
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.runtimes.steps import METADATA_KEY

    said = child.run(
        [
            str(python),
            "-P",
            "-c",
            _CONVERT,
            "-f",
            "ONNX",
            "--modelFile",
            str(source),
            "--MNNModel",
            str(target),
            "--bizCode",
            "compressor",
            *arguments,
        ],
        seconds=options.seconds,
        what=f"MNN's converter on {target.name}",
        environment={"OMP_NUM_THREADS": "1"},
    )
    if not target.is_file():
        raise _unwritten(target, said)
    file = OnnxFile(source)
    kept = {key: value for key, value in file.metadata.items() if key == METADATA_KEY}
    beside = describe(target, "mnn", "mnn", file.inputs, file.outputs, metadata=kept)
    return Candidate(target, "mnn", extras={beside: "inputs, outputs and states"})


def _unwritten(target: Path, said: str) -> Exception:
    """The converter prints what it cannot take, writes nothing, and ends as if all were well."""
    from compressor.errors import ExportError

    missing = re.findall(r"Not Support:\s*(.*\S)", said)
    why = f": it does not take {', '.join(missing)} as it stands there" if missing else " and without an error"
    return ExportError(f"MNN's converter ended without {target.name}{why}")
