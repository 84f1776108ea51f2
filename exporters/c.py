"""C99 for microcontrollers (`.c` and `.h`): no heap, no files, no library but `math.h`; compiled here and checked.

A step by default: `model_init(&state)`, then `model_step(&state, inputs, outputs)` for each position; with `length`, a
whole sequence of that length in one call of `model_run`. Weights are constants, and all that is written to lies in one
struct.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from compressor.errors import ParityError
from compressor.runtimes import c_compiler, generated_code
from compressor.runtimes.microcontroller import boards
from exporters.c_code.compiling import object_bytes, sanitize
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
    from compressor.runtimes.microcontroller.boards import Tools
    from compressor.surgery.second_order.table import RowTable
    from exporters.c_code.rounding import Rounding
    from exporters.c_code.sources import Sources


_BITS = {"int8": 8, "int4": 4}


class Options(RoundedOptions):
    """Options of `format: c`."""

    ending: ClassVar[str] = "c"
    format: Literal["c"] = "c"
    """The recipe word of this exporter."""
    form: Literal["sequence", "step"] = "step"
    """A step: `chunk` positions in, outputs out, the states carried on in a struct, of causal models only; or a whole
    sequence of `length` positions."""
    precision: Literal["float32", "int8", "int4"] = "float32"
    """Of the weights of linear and recurrent layers; each row has a scale with int8, and each 32 weights of a row with
    int4, which lie two in a byte."""
    activations: Literal["float32", "int16", "int8"] = "float32"
    """Of the inputs of products whose weights are integers: whole numbers, with one scale for the vector of the moment,
    are faster where the processor has no vectors of floats (Cortex-M4, M7); sums have 32 bits and cannot overflow."""
    math: Literal["library", "fast"] = "library"
    """exp, tanh and sigmoid: those of `math.h`; or shorter ones in single precision, relative error of exp and absolute
    errors of the others at most 3e-7, which need no table and less flash."""
    target: Literal["cortex-m4", "cortex-m7"] | None = None
    """Also compile the code for this processor and run it there, emulated: it has to give what it gives here, and the
    report has flash, RAM and instructions. Needs Debian's gcc-arm-none-eabi, libnewlib-arm-none-eabi and
    qemu-system-arm."""
    layouts: tuple[Literal["cmake", "arduino", "esp-idf", "zephyr"], ...] = ()
    """Also pack the two files as these tool chains take them: `model.step.arduino.zip`, with a folder to unpack."""
    sanitize: bool = True
    """Run the code once with the compiler's sanitizers of addresses and undefined behaviour, if it has them."""

    @model_validator(mode="after")
    def _sequences_have_a_length(self) -> Options:
        if self.form == "sequence" and self.length is None:
            raise ValueError("`form: sequence` needs `length`: C without a heap knows all sizes")
        if self.precision == "float32" and self.activations != "float32":
            raise ValueError("`activations` in whole numbers go with `precision: int8` or `int4`")
        return self

    def unrounded(self) -> Self:
        """The same in float32."""
        return super().unrounded().model_copy(update={"activations": "float32"})

    @property
    def how_rounded(self) -> str:
        """What has which scale."""
        inputs = "floats" if self.activations == "float32" else f"{self.activations} with the scale of the moment"
        return f"a scale for {'each row' if self.precision == 'int8' else '32 weights'}, inputs of products in {inputs}"

    @property
    def emulates(self) -> bool:
        """The option `target`."""
        return self.target is not None


def export(job: Job[Options]) -> Artifact:
    """Write `model` as C beside `job.path`: `model.c`, `model.h` and a description.

    Raises:
        ExportError: There is no C compiler, the model has no such form, or an operator is not supported in C.
        ParityError: What the compiled code computes disagrees with PyTorch, or differs on the target.
        OutputError: The files cannot be written.
    """
    c_compiler.find()
    tools = boards.tools() if job.options.target else None
    with workshop(job.path) as folder:
        source, _ = onnx_file(job, folder, length=job.options.length)
        candidates = [_candidate(job, source, folder / "float", None)]
        if job.options.compresses:
            from exporters.c_code.rounding import Rounding

            bits = _BITS[job.options.precision]
            rounding = Rounding(_table(job, bits), bits, job.options.activations)
            candidates.append(_candidate(job, source, folder / job.options.precision, rounding))
        candidates[-1] = _proven(job, candidates[-1], tools)
        return deliver_rounded([made.candidate for made in candidates], job)


@dataclass(frozen=True)
class _Made:
    """A file before it is compared with PyTorch."""

    candidate: Candidate
    written: Sources


def _candidate(job: Job[Options], source: Path, folder: Path, rounding: Rounding | None) -> _Made:
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.runtimes.steps import METADATA_KEY, read_info
    from exporters.c_code.files import write

    folder.mkdir()
    file = OnnxFile(source)
    info = read_info(file)
    stem = job.path.name.removesuffix(".c")
    facts = _facts(job, info, rounding)
    fast = job.options.math == "fast"
    written = write(_graph(source), stem, info, rounding=rounding, facts=facts, fast_math=fast)
    code, header = folder / job.path.name, folder / written.header_name
    code.write_text(written.code, encoding="ascii")
    header.write_text(written.header, encoding="ascii")
    generated_code.approve(code)
    metadata = {key: value for key, value in file.metadata.items() if key == METADATA_KEY}
    details = {"c": json.dumps(written.interface())}
    beside = describe(code, "c", "c", file.inputs, file.outputs, metadata=metadata, details=details)
    sanitize(code, written, runs=job.options.sanitize)
    flash = object_bytes(code)
    candidate = Candidate(
        code,
        "c",
        parts={header: "what a program includes"},
        extras={beside: "inputs, outputs and states, and the proof"},
        operators=written.operators,
        notes=(
            f"Constants take {written.constant_bytes} bytes, the state struct {written.state_bytes}; compiled for size "
            f"on this machine, code and constants together are {flash} bytes.",
        ),
        stored=(flash, len(gzip.compress(written.constant_data(), mtime=0))),
    )
    return _Made(candidate, written)


def _proven(job: Job[Options], made: _Made, tools: Tools | None) -> _Made:
    """With a few calls and what they gave beside it; and run on the target, if there is one."""
    from compressor.runtimes.microcontroller.proof import KEY, read, verify
    from compressor.runtimes.runtime_file import description_path, read_description
    from exporters.c_code import layouts, proof

    path = made.candidate.path
    told = proof.proof_of(job, path, rounds=job.options.activations != "float32")
    beside = description_path(path)
    description = read_description(path)
    details = {**description.details, KEY: told.text()}
    beside.write_text(description.model_copy(update={"details": details}).model_dump_json(indent=2) + "\n", "utf-8")
    test = path.with_name(f"{path.name.removesuffix('.c')}.proof.h")
    test.write_text(proof.header(made.written, told), encoding="ascii")
    extras = {**made.candidate.extras, test: "a test for your board"}
    for layout in dict.fromkeys(job.options.layouts):
        packed = path.with_name(f"{path.name.removesuffix('.c')}.{layout}.zip")
        packed.write_bytes(layouts.archive(layout, made.written, path.name))
        extras[packed] = f"both files for {layout}"
    emulated = None
    if job.options.target is not None and tools is not None:
        emulated = verify(*read(path), boards.BOARDS[job.options.target], tools)
        if not emulated.agrees:
            raise ParityError(
                f"{path.name} gives on an emulated {emulated.cpu} what is up to {emulated.max_absolute:.3g} off from "
                f"what it gives here; {emulated.atol:.3g} would pass",
                hint="leave `target` out to look at the file",
            )
    return replace(made, candidate=replace(made.candidate, extras=extras, emulated=emulated))


def _graph(source: Path) -> ir.Model:
    import onnx
    import onnx_ir as ir

    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(source), data_prop=True))


def _facts(job: Job[Options], info: StreamInfo | None, rounding: Rounding | None) -> list[str]:
    from compressor.version import VERSION

    form = f"one step of {info.chunk} position(s)" if info else f"a whole sequence of {job.options.length} positions"
    return [
        f"{job.path.name}: {form}, weights in {f'{rounding.bits} bits' if rounding else 'float'}.",
        f"Written by edge-compressor {VERSION}; compiled and compared with PyTorch when it was written.",
        "C99; needs math.h and string.h, no heap, no files. Do not edit: export again.",
    ]


def _table(job: Job[Options], bits: int) -> RowTable | None:
    """Rows rounded by second order on training data; None if the task has none."""
    from compressor.surgery.second_order.table import fill
    from exporters.c_code.inner_products import BLOCK
    from exporters.quantization import calibration

    data = calibration.calibration(job.task, 64, job.seed, real=False)
    if not data.real:
        return None
    return fill(private_copy(job.model), data.seen, bits=lambda rows, matrix: (bits,), block=BLOCK)
