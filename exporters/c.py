"""C99 for microcontrollers (`.c` and `.h`): no heap, no files, no library but `math.h`; compiled here and checked.

A step by default: `model_init(&state)`, then `model_step(&state, inputs, outputs)` for each position; with `length`, a
whole sequence of that length in one call of `model_run`. Weights are constants, and all that is written to lies in one
struct.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from compressor.errors import ExportError
from compressor.runtimes import child, generated_code
from exporters.deliver import Candidate, describe
from exporters.float_first import deliver_rounded
from exporters.options import RoundedOptions
from exporters.prepare import private_copy, workshop
from exporters.source import onnx_file

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from compressor.formats import Job
    from compressor.report import Artifact, StreamInfo
    from exporters.c_code.files import Sources
    from exporters.c_code.rounding import Rounding
    from exporters.quantization.second_order.table import RowTable

_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 300.0
_SHADOW = 1 << 47
"""Bytes of address space that sanitizers reserve and hardly use."""
_STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
_SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Options(RoundedOptions):
    """Options of `format: c`."""

    ending: ClassVar[str] = "c"
    format: Literal["c"] = "c"
    """The recipe word of this exporter."""
    form: Literal["sequence", "step"] = "step"
    """A step: `chunk` positions in, outputs out, the states carried on in a struct, of causal models only; or a whole
    sequence of `length` positions."""
    precision: Literal["float32", "int8"] = "float32"
    """Of the weights of linear and recurrent layers; with int8 each row has a scale, and sums are in float."""
    sanitize: bool = True
    """Run the code once with the compiler's sanitizers of addresses and undefined behaviour, if it has them."""

    @model_validator(mode="after")
    def _sequences_have_a_length(self) -> Options:
        if self.form == "sequence" and self.length is None:
            raise ValueError("`form: sequence` needs `length`: C without a heap knows all sizes")
        return self


def export(job: Job[Options]) -> Artifact:
    """Write `model` as C beside `job.path`: `model.c`, `model.h` and a description.

    Raises:
        ExportError: There is no C compiler, the model has no such form, or an operator has no C here.
        ParityError: What the compiled code computes disagrees with PyTorch.
        OutputError: The files cannot be written.
    """
    compiler()
    with workshop(job.path) as folder:
        source, _ = onnx_file(job, folder, length=job.options.length)
        _table(job) if job.options.compresses else None
        candidates = [_candidate(job, source, folder / "float", None)]
        if job.options.compresses:
            from exporters.c_code.rounding import Rounding

            candidates.append(_candidate(job, source, folder / job.options.precision, Rounding(_table(job))))
        return deliver_rounded(candidates, job)


def compiler() -> str:
    """The C compiler: that of the variable `CC`, or the first of cc, gcc and clang; raises `ExportError` if none."""
    named = os.environ.get("CC")
    found = next((path for name in ([named] if named else _COMPILERS) if (path := shutil.which(name))), None)
    if found is None:
        raise ExportError(
            f"there is no C compiler{f' `{named}`' if named else ''}, which `format: c` needs to check what it writes",
            hint="install gcc or clang (Debian's package gcc), or name one in the variable CC",
        )
    return found


def _candidate(job: Job[Options], source: Path, folder: Path, rounding: Rounding | None) -> Candidate:
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.runtimes.steps import METADATA_KEY, read_info
    from exporters.c_code.files import write

    folder.mkdir()
    file = OnnxFile(source)
    info = read_info(file)
    stem = job.path.name.removesuffix(".c")
    facts = _facts(job, info, rounding is not None)
    written = write(_graph(source), stem, info, rounding=rounding, facts=facts)
    code, header = folder / job.path.name, folder / written.header_name
    code.write_text(written.code, encoding="ascii")
    header.write_text(written.header, encoding="ascii")
    generated_code.approve(code)
    metadata = {key: value for key, value in file.metadata.items() if key == METADATA_KEY}
    details = {"c": json.dumps(written.interface())}
    beside = describe(code, "c", "c", file.inputs, file.outputs, metadata=metadata, details=details)
    _sanitize(job, code, written)
    flash = _flash(job, code)
    return Candidate(
        code,
        "c",
        parts={header: "what a program includes"},
        extras={beside: "inputs, outputs and states"},
        operators=written.operators,
        notes=(
            f"Constants take {written.constant_bytes} bytes, the state struct {written.state_bytes}; compiled for size "
            f"on this machine, code and constants together are {flash} bytes.",
        ),
        stored=(flash, len(gzip.compress(written.constant_data(), mtime=0))),
    )


def _graph(source: Path) -> ir.Model:
    import onnx
    import onnx_ir as ir

    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(source), data_prop=True))


def _facts(job: Job[Options], info: StreamInfo | None, rounds: bool) -> list[str]:
    from compressor import __version__

    form = f"one step of {info.chunk} position(s)" if info else f"a whole sequence of {job.options.length} positions"
    return [
        f"{job.path.name}: {form}, weights in {'8 bits, a scale for each row' if rounds else 'float'}.",
        f"Written by edge-compressor {__version__}; compiled and compared with PyTorch when it was written.",
        "C99; needs math.h and string.h, no heap, no files. Do not edit: export again.",
    ]


def _table(job: Job[Options]) -> RowTable | None:
    """Rows rounded by second order on training data; None if the task has none."""
    from exporters.quantization import calibration
    from exporters.quantization.second_order.table import fill

    data = calibration.calibration(job.task, 64, job.seed, real=False)
    if not data.real:
        return None
    return fill(private_copy(job.model), data.seen, bits=lambda rows, matrix: (8,), block=32)


def _sanitize(job: Job[Options], code: Path, written: Sources) -> None:
    """Compile with every warning as an error, and run three steps on made-up inputs under the sanitizers."""
    program = code.with_name("try")
    (code.with_name("try_main.c")).write_text(written.trial(), encoding="ascii")
    base = [compiler(), *_STRICT, "-o", str(program), str(code), str(code.with_name("try_main.c"))]
    what = f"the C compiler on {job.path.name}"
    child.run([*base, "-O2", "-lm"], seconds=_SECONDS, what=what)
    if not job.options.sanitize:
        return
    try:
        child.run([*base, *_SANITIZED, "-lm"], seconds=_SECONDS, what=what)
    except ExportError:
        return  # a compiler without sanitizers: it compiled without them
    what = f"{job.path.name} under the sanitizers of the C compiler"
    child.run([str(program)], seconds=_SECONDS, what=what, memory=_SHADOW)


def _flash(job: Job[Options], code: Path) -> int:
    """Bytes of code and constants in an object file that is compiled for size."""
    target = code.with_name("size.o")
    child.run(
        [compiler(), "-std=c99", "-Os", "-c", "-o", str(target), str(code)],
        seconds=_SECONDS,
        what=f"the C compiler on {job.path.name}",
    )
    listed = shutil.which("size")
    if listed is None:
        return target.stat().st_size
    lines = child.run([listed, "-B", str(target)], seconds=_SECONDS, what="the program `size`").splitlines()
    text, data = lines[1].split()[:2]
    return int(text) + int(data)
