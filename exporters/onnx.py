"""ONNX files that phones load: native recurrent nodes, plain initializers, dynamic batch and time, one file.

The file is checked before it gets its name: the ONNX checker, strict shape inference, and agreement with PyTorch at
several batch sizes and lengths, most of them never seen while exporting.

Notes on runtimes: a relu `nn.RNN` is right in ONNX Runtime and OpenVINO, but MNN, ncnn and tract compute its native
node as if it were tanh. MNN's converter wants `--useOriginRNNImpl` for LSTMs.
Packed sequences use the nodes' `sequence_lens` input: try such a file in the target runtime.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compressor.errors import CompressorError, ExportError, ParityError
from compressor.files import write_all, writing
from compressor.progress import Bar, Progress, Silent
from compressor.report import Artifact, Parity, Part, RuntimeCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx
    from torch import Tensor, nn

    from compressor.report import Quantization, StreamInfo
    from compressor.task.contract import Task
    from exporters.loops.capture import Captured

    Axes = Mapping[str, Mapping[int, str]]

_SILENT = Silent()
_STREAMED = 8
"""Most sequences on which rounding of a step file is measured."""
_OF_NPUS = ("activations", "calibration", "per_channel")
"""Options of `quantize_for: npu`."""
_FOR_STEPS_ONLY = "float32: a file of whole sequences has open shapes, and the step file is the one for accelerators"
_ACCELERATORS = ("qnn", "nnapi")
"""Of whose tables the report says what they take of a file for NPUs."""
_OPSET_OF_16_BITS = 21
"""From it on QuantizeLinear has uint16."""
_OF_OPENVINO = (
    "where only some lengths are wrong, it is its cache of compiled subgraphs: with CPU_RUNTIME_CACHE_CAPACITY 0 or "
    "SNIPPETS_MODE DISABLE it computes attention right at every length; "
)
_BATCH = 3
"""Batch size while tracing; a size of 1 would be taken for a fixed axis."""


class Options(BaseModel):
    """Options of `format: onnx`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal["onnx"] = "onnx"
    """The recipe word of this exporter."""
    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the file, without `.onnx`."""
    opset: int = Field(default=18, ge=17, le=23)
    """Version of the ONNX operator set. 18 is read by every mobile runtime; 23 has an Attention node that few know. The
    first ONNX Runtime that reads it: 17 1.12, 18 1.14, 19 1.15, 20 1.17, 21 1.18, 22 1.21, 23 1.23."""
    ir_version: int = Field(default=8, ge=8, le=11)
    """Version of the file format. The first ONNX Runtime that reads it: 8 1.12, 9 1.15, 10 1.18, 11 1.23."""
    external_data: Literal["auto"] | bool = "auto"
    """Weights in a file of their own, `NAME.onnx.data`; `auto`: where they are more than the 2 GiB of one file."""
    atol: float = Field(default=1e-5, gt=0, le=1e-1, allow_inf_nan=False)
    """Absolute tolerance of the comparison with PyTorch."""
    rtol: float = Field(default=1e-4, gt=0, le=1e-1, allow_inf_nan=False)
    """Relative tolerance of the comparison with PyTorch."""
    shapes: dict[Annotated[str, Field(min_length=1)], Annotated[int, Field(ge=1)]] = {}
    """Sizes at which the file fixes dynamic axes, by the names that the task gives them: `{batch: 1, time: 32}` leaves
    no shape open, which the accelerators of phones want."""
    float_io: bool = True
    """With `precision: float16`, inputs and outputs stay float32 and are cast inside the file."""
    stream: bool = False
    """Also write a step file, `NAME.step.onnx`: one position and the states of all layers in, outputs and new states
    out; and `NAME.step.py`, an example of the loop. Of causal models only."""
    chunk: int = Field(default=1, ge=1, le=256)
    """Positions in a step of the step file."""
    batch: Literal[1, "dynamic"] = 1
    """Streams that the step file runs at once. 1 leaves no shape open, which accelerators of phones want."""
    cells: Literal["auto", "plain", "native"] = "auto"
    """Recurrent layers of the step file as plain operations (MatMul, Sigmoid, ...) or as RNN, GRU and LSTM nodes;
    `auto`: plain where `chunk` is 1."""
    precision: Literal["float32", "float16", "int8", "int4"] = "float32"
    """What weights are stored in. `float16`: also computed in where it runs; recurrent nodes compute in float32 (see
    the module). `int8`: matrices in 8 bits, a scale for each channel. `int4`: matrices of products in
    4 bits, others in 8. Those that cost too much stay float; the report lists them all."""
    quantize_for: Literal["cpu", "anywhere", "npu"] = "cpu"
    """`cpu`: products of integers, for ONNX Runtime on a CPU: small and fast. `anywhere`: 8 bits in the file, float
    again in front of each operator (DequantizeLinear): as small, no faster, exact activations, plain ONNX. `npu`:
    pairs of QuantizeLinear and DequantizeLinear of calibrated scales around everything, recurrent layers as plain
    operations, for the fixed sizes of `shapes`: what accelerators of phones run in integers (QNN, NNAPI)."""
    keep_float: tuple[str, ...] = ()
    """Globs of matrices that stay float, by their names in the report."""
    calibration_samples: int = Field(default=64, ge=1, le=10_000)
    """Sequences of the task's training data on which the error of rounding is measured."""
    max_error: float = Field(default=0.1, gt=0, le=1, allow_inf_nan=False)
    """Largest relative error of the outputs by rounding, ||quantized - float|| / ||float||, on this data; and a third
    of the largest one at any of the lengths at which the file is compared with PyTorch."""
    block: Literal[16, 32, 64, 128] = 32
    """Weights with a common scale in 4 bits."""
    activations: Literal["uint8", "uint16"] = "uint8"
    """For NPUs: what is rounded between the operators. Every NPU has `uint8`; `uint16` is closer, slower, known to QNN
    and not to NNAPI, and needs `opset: 21`."""
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    """For NPUs: the range of a tensor from calibration data: all of it, all but its furthest hundred-thousandth, or
    that whose rounded histogram diverges least (Kullback and Leibler) from the histogram."""
    per_channel: bool = True
    """For NPUs: a scale for each output of a matrix. With `false` one for each matrix, all that NNAPI has for products,
    and QNN's provider before its version 2."""

    @model_validator(mode="after")
    def _options_of_rounding_only_with_it(self) -> Options:
        fields = type(self).model_fields
        rounding = ("quantize_for", "keep_float", "calibration_samples", "max_error", "block", *_OF_NPUS)
        given = [name for name in rounding if getattr(self, name) != fields[name].default]
        if given and self.precision not in ("int8", "int4"):
            raise ValueError(f"`{given[0]}` is an option of rounding: give `precision: int8` or `precision: int4`")
        if self.check_in and self.precision in ("int8", "int4"):
            raise ValueError(
                "`check_in` compares with PyTorch to `atol`, which rounded weights do not reach: leave one out"
            )
        if self.precision == "int4" and self.quantize_for != "cpu":
            raise ValueError("4 bits need `MatMulNBits` of ONNX Runtime: give `quantize_for: cpu` or `precision: int8`")
        return self

    @model_validator(mode="after")
    def _options_of_npus(self) -> Options:
        fields = type(self).model_fields
        given = [name for name in _OF_NPUS if getattr(self, name) != fields[name].default]
        if self.quantize_for != "npu":
            if given and self.precision == "int8":
                raise ValueError(f"`{given[0]}` is an option of `quantize_for: npu`")
            return self
        if not self.shapes and not self.stream:
            raise ValueError(
                "NPUs take fixed shapes only: give all sizes, such as `shapes: {batch: 1, time: 32}`, or `stream: true`"
            )
        if self.activations == "uint16" and self.opset < _OPSET_OF_16_BITS:
            raise ValueError(f"`activations: uint16` needs `opset: {_OPSET_OF_16_BITS}` or newer, not {self.opset}")
        return self

    check_in: tuple[Literal["openvino", "tract"], ...] = ()
    """Further runtimes in which the same file must agree with PyTorch; a file that is not right in one of them is not
    written. `compressor runtimes list` shows which are installed."""

    @model_validator(mode="after")
    def _options_of_streams_only_with_a_stream(self) -> Options:
        fields = type(self).model_fields
        given = [name for name in ("chunk", "batch", "cells") if getattr(self, name) != fields[name].default]
        if given and not self.stream:
            raise ValueError(f"`{given[0]}` is an option of the step file, which is written with `stream: true`")
        return self

    @model_validator(mode="after")
    def _options_that_exclude_each_other(self) -> Options:
        if self.stream and self.shapes:
            raise ValueError(
                "`shapes` is for the whole sequence: a step file has fixed shapes already; export both by entries of "
                "their own, with another `name`"
            )
        if not self.float_io and self.precision != "float16":
            raise ValueError("`float_io` is an option of `precision: float16`")
        if not self.float_io and self.stream:
            raise ValueError("a step file keeps float32 states: leave out `float_io`")
        return self

    def with_tolerances(self) -> Options:
        """The same with `atol` and `rtol` of the precision, where they were left alone."""
        from exporters.passes import half

        if self.precision != "float16" or {"atol", "rtol"} & self.model_fields_set:
            return self
        return self.model_copy(update={"atol": half.ATOL, "rtol": half.RTOL})


def export(
    model: nn.Module,
    task: Task,
    path: Path,
    options: Options,
    *,
    progress: Progress = _SILENT,
    seed: int = 0,
    metric_drop: float | None = None,
) -> Artifact:
    """Write `model` to `path` as one ONNX file that is known to agree with PyTorch.

    Args:
        model: A float32 model; it is not changed.
        task: Says how inputs, outputs and dynamic axes are called, and gives examples.
        path: The file; what was there is replaced once the new one has passed every check.
        options: Opset, file format and tolerances.
        progress: Where progress goes; nowhere by default.
        seed: Seeds PyTorch's generator for the task's examples, and the choice of sizes for the comparison.
        metric_drop: Largest loss of the task's metric by rounding weights; not looked at where it is left out.

    Returns:
        The facts about the file, and in `step` about its step file; `path` in it is the bare file name.

    Raises:
        ExportError: The model cannot be exported; the message says what to change.
        ParityError: The file disagrees with PyTorch.
        OutputError: The file cannot be written.
    """
    import torch

    from compressor.task.fixed_axes import fixed

    start = time.perf_counter()
    options = options.with_tolerances()
    task = fixed(task, options.shapes)
    with (
        torch.random.fork_rng(devices=[]),
        progress.bar(f"export {path.name}", total=6 if options.stream else 4) as bar,
        _neighbour(path) as candidate,  # first of all, so that a folder that cannot be written is known at once
    ):
        torch.manual_seed(seed)
        reference = _private_copy(model)
        proto = _graph(reference, task, options, bar)
        parts = _parts(proto, path, options)
        bar.advance(note="compare with PyTorch")
        _write_beside(candidate, parts)
        parity = _parity(reference, candidate, task, options, seed)
        artifact = _artifact(candidate, parts, parity, time.perf_counter() - start)
        artifact = artifact.model_copy(update={"checks": _checks(reference, candidate, task, options, seed)})
        step: Artifact | None = None
        more: dict[Path, bytes] = {}
        if options.stream:
            bar.advance(note="step by step")
            step, more = _step(_private_copy(model), candidate, task, path, options, seed, metric_drop, bar)
        npu = options.quantize_for == "npu"
        if npu and options.stream:
            artifact = artifact.model_copy(update={"notes": (_FOR_STEPS_ONLY,)})
        elif options.precision in ("int8", "int4"):
            bar.advance(0, note="quantize")
            parts, rounded = _quantized(proto, candidate, path, task, reference, options, seed, metric_drop, bar)
            artifact = _artifact(candidate, parts, parity, time.perf_counter() - start)
            notes = _taken(proto, candidate) if npu else ()
            artifact = artifact.model_copy(update={"quantization": rounded, "notes": notes})
        artifact = artifact.model_copy(update={"step": step})
        with writing(path):
            write_all({**parts, **more})
        bar.advance(note="done")
    return artifact


def step_path(path: Path) -> Path:
    """The step file beside a whole-sequence file: `model.step.onnx` beside `model.onnx`."""
    return path.with_name(f"{path.stem}.step{path.suffix}")


def _step(
    model: nn.Module,
    whole: Path,
    task: Task,
    path: Path,
    options: Options,
    seed: int,
    metric_drop: float | None,
    bar: Bar,
) -> tuple[Artifact, dict[Path, bytes]]:
    """The checked step file of `model` and the example of its loop, for which nothing is written yet but candidates."""
    from exporters.stepping import example as step_example
    from exporters.stepping import graph as streaming

    start = time.perf_counter()
    target, candidate = step_path(path), step_path(whole)
    built = streaming.graph(model, task, options)
    parts = _parts(built.proto, target, options)
    _write_beside(candidate, parts)
    bar.advance(note="compare chained steps")
    parity, chained = streaming.agreement(model, whole, candidate, task, options, seed)
    artifact = _artifact(candidate, parts, parity, time.perf_counter() - start)
    artifact = artifact.model_copy(update={"checks": _checks(model, candidate, task, options, seed)})
    if options.precision in ("int8", "int4"):
        bar.advance(0, note="quantize the step")
        parts, rounded = _quantized(
            built.proto, candidate, target, task, model, options, seed, metric_drop, bar, built.info
        )
        artifact = _artifact(candidate, parts, parity, time.perf_counter() - start)
        notes = _taken(built.proto, candidate) if options.quantize_for == "npu" else ()
        artifact = artifact.model_copy(update={"quantization": rounded, "notes": notes})
    text = step_example.write(artifact, built.info)
    return artifact.model_copy(update={"stream": built.info, "chained": chained}), {
        **parts,
        target.with_suffix(".py"): text.encode(),
    }


def _quantized(
    proto: onnx.ModelProto,
    candidate: Path,
    path: Path,
    task: Task,
    reference: nn.Module,
    options: Options,
    seed: int,
    metric_drop: float | None,
    bar: Bar,
    stream: StreamInfo | None = None,
) -> tuple[dict[Path, bytes], Quantization]:
    """The files of the graph in fewer bits, checked, which also take the place of the float ones in `candidate`."""
    from compressor.runtimes.forward import Fixed
    from compressor.runtimes.steps import Steps
    from compressor.task.fixed_axes import dynamic
    from exporters.passes import tidy
    from exporters.quantization import quantize
    from exporters.quantization.nodes import DOMAIN
    from exporters.stepping import graph as streaming

    if stream is not None and options.quantize_for != "npu":  # every position of every sequence is a call
        few = min(_STREAMED, options.calibration_samples)
        options = options.model_copy(update={"calibration_samples": few})
    made, found = quantize.quantize(
        proto,
        candidate.parent,
        task,
        reference,
        options,
        shapes=None if stream is None else streaming.Sequences(task, stream.inputs),
        behind=lambda file: Fixed(file, dynamic(task)) if stream is None else Steps(file.path, file=file),
        stream=stream,
        metric=None if metric_drop is None else quantize.metric_of(task, metric_drop),
        seed=seed,
        bar=bar,
    )
    tidy.check(made, options.opset, {DOMAIN: 1} if options.quantize_for == "cpu" else {})
    parts = _parts(made, path, options)
    _write_beside(candidate, parts)
    return parts, found


def _taken(before: onnx.ModelProto, candidate: Path) -> tuple[str, ...]:
    """What accelerators take of a file, and took of the float graph, by the tables of `compressor check`."""
    from compressor.onnx_graphs import targets
    from compressor.onnx_graphs.partition import survey
    from compressor.runtimes import loading

    said = []
    for name in _ACCELERATORS:
        target = targets.get(name)
        old, new = (survey(proto, target) for proto in (before, loading.read(candidate)))
        said.append(
            f"{target.title} takes {new.taken} of {new.nodes} nodes in {new.partitions} partitions "
            f"({old.taken} of {old.nodes} in {old.partitions} of the float graph), by the table of `compressor check`"
        )
    return tuple(said)


def _graph(model: nn.Module, task: Task, options: Options, bar: Bar) -> onnx.ModelProto:
    """The checked graph of `model`, which gets buffers for the native nodes."""
    from exporters.capture import native_recurrent
    from exporters.capture import program as torch_capture
    from exporters.loops.capture import translate_body
    from exporters.passes import tidy

    native_recurrent.prepare(model)
    length, axes = _tracing_length(task)
    inputs = task.example(_BATCH if length != _BATCH else _BATCH - 1, length)
    _refuse_unfit_outputs(model, inputs, task)
    captured, axes = _captured(model, task, inputs, axes)
    bar.advance(note="translate")
    graph = torch_capture.translate(captured.program, options.opset)
    bar.advance(note="simplify and check")
    with torch_capture.quiet():
        tidy.tidy(graph, captured.bodies, lambda body: translate_body(body, options.opset))
    tidy.name_values(graph, task.inputs, task.outputs)
    proto = tidy.to_proto(graph, axes, task.outputs, options.ir_version)
    finish(proto, options)
    return proto


def _captured(model: nn.Module, task: Task, inputs: tuple[Tensor, ...], axes: Axes) -> tuple[Captured, Axes]:
    """The traced model, and the axes that are open in it; a loop over time is rolled up where the task has lengths."""
    from compressor.task.fixed_axes import FixedAxes
    from exporters.capture import program as torch_capture
    from exporters.loops import capture as loops

    try:
        program = torch_capture.capture(model, inputs, axes)
    except ExportError as error:
        if task.min_length < task.max_length:
            return loops.capture(model, task, inputs, axes, error), axes
        axes = _without_time(task.inputs)  # cells in a loop are unrolled, which does for a task of one length
        return loops.Captured(torch_capture.capture(model, inputs, axes)), axes
    if isinstance(task, FixedAxes) and task.min_length == task.max_length and loops.has_cells(program):
        with contextlib.suppress(ExportError):  # at a fixed length a loop is written out where it cannot be rolled up
            return loops.capture(model, task.task, inputs, axes), axes
    return loops.Captured(program), axes


def finish(proto: onnx.ModelProto, options: Options) -> None:
    """Check a graph, and give it the precision that was asked for."""
    from exporters.passes import half, tidy

    tidy.check(proto, options.opset)
    if options.precision == "float16":
        half.convert(proto, float_io=options.float_io)
        tidy.check(proto, options.opset)


def _private_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode; raises `ExportError` where `model` cannot be copied or is not float32."""
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(
                f"`{name}` is {str(tensor.dtype).removeprefix('torch.')}, and only float32 models are exported",
                hint="call `.float()` on the model in the task's `model`",
            )
    try:
        return copy.deepcopy(model).cpu().eval()
    except Exception as error:
        raise ExportError(
            f"the model cannot be copied: {type(error).__name__}: {error}",
            hint="`copy.deepcopy(model)` must work; keep no computed tensors, files or locks as attributes",
        ) from error


def _tracing_length(task: Task) -> tuple[int, Axes]:
    """A length to trace at, and the dynamic axes of the inputs; `time` is fixed where only length 1 is allowed."""
    if task.max_length == 1:
        return 1, _without_time(task.inputs)
    return max(2, min(task.length, task.max_length)), task.inputs


def _without_time(inputs: Axes) -> Axes:
    return {name: {axis: word for axis, word in axes.items() if word != "time"} for name, axes in inputs.items()}


def _refuse_unfit_outputs(model: nn.Module, inputs: tuple[Tensor, ...], task: Task) -> None:
    """Run the model once; raises `ExportError` where it fails or gives other outputs than the task names."""
    import torch
    from torch import Tensor

    from exporters.capture.program import plain_attention

    shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in zip(task.inputs, inputs, strict=True))
    try:
        with torch.no_grad(), plain_attention():
            outputs = model(*inputs)
    except CompressorError:
        raise
    except Exception as error:
        raise ExportError(
            f"the model fails on the task's example ({shapes}): {type(error).__name__}: {error}",
            hint="`example` must give what `forward` takes, in the order of `inputs`",
        ) from error
    found = (outputs,) if isinstance(outputs, Tensor) else outputs
    if not isinstance(found, tuple) or not all(isinstance(part, Tensor) for part in found):
        raise ExportError(
            f"the model gives a {type(outputs).__name__}; only a tensor or a flat tuple of tensors can be exported",
            hint="wrap the model in a module whose `forward` returns the tensors that the phone needs",
        )
    if len(found) != len(task.outputs):
        raise ExportError(
            f"the model gives {len(found)} outputs, but the task's `outputs` names {len(task.outputs)}",
            hint="name every tensor that `forward` returns, in order",
        )


@contextlib.contextmanager
def _neighbour(path: Path) -> Iterator[Path]:
    """A file of the same name in a temporary folder beside `path`; the folder is gone afterwards."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    with folder as name:
        yield Path(name) / path.name


def _parity(reference: nn.Module, candidate: Path, task: Task, options: Options, seed: int) -> Parity:
    """Agreement of the file with PyTorch; raises `ParityError` with every point where it is not within tolerance."""
    import torch

    from compressor.measure import parity
    from compressor.runtimes.forward import Fixed
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.task.fixed_axes import dynamic
    from exporters.capture.program import plain_attention

    generator = torch.Generator().manual_seed(seed)
    forward = Fixed(OnnxFile(candidate), dynamic(task))
    with torch.no_grad(), plain_attention():
        found = parity.check(reference, forward, task, atol=options.atol, rtol=options.rtol, generator=generator)
    if not found.passed:
        raise ParityError(
            f"the exported file disagrees with PyTorch (atol {found.atol:g}, rtol {found.rtol:g}):\n"
            + parity.table(found),
            hint="the model's code may fix a length or a batch size; where every point is close, raise atol and rtol",
        )
    return found


def _checks(reference: nn.Module, candidate: Path, task: Task, options: Options, seed: int) -> tuple[RuntimeCheck, ...]:
    """Agreement of the file with PyTorch in each further runtime; raises `ParityError` where one is not right."""
    from compressor.measure import parity
    from exporters import phone
    from exporters.passes import fixed_shapes

    found = []
    for runtime in dict.fromkeys(options.check_in):
        compared, version = phone.agreement(reference, candidate, task, options, seed, runtime=runtime)
        if not compared.passed:
            known = "it computes an RNN of relu as one of tanh; " if fixed_shapes.has_relu(candidate) else ""
            known += _OF_OPENVINO if runtime == "openvino" else ""
            raise ParityError(
                f"the exported file is right in ONNX Runtime and disagrees with PyTorch in {version}:\n"
                + parity.table(compared),
                hint=f"{known}leave `{runtime}` out of `check_in` where the file is not for it",
            )
        found.append(RuntimeCheck(runtime=version, parity=compared))
    return tuple(found)


def _parts(proto: onnx.ModelProto, path: Path, options: Options) -> dict[Path, bytes]:
    """The files of a graph: the data file, where it has one, and the file itself at `path`."""
    from exporters.passes import external_data

    weights = external_data.weight_bytes(proto)
    over = weights > external_data.MAX_MESSAGE_BYTES
    if over and options.external_data is False:
        raise ExportError(
            f"the model's weights take {weights} bytes, and one file holds at most {external_data.MAX_MESSAGE_BYTES}",
            hint="leave out `external_data: false`, or compress the model further",
        )
    data = path.with_name(f"{path.name}.data")
    parts = {}
    if over or options.external_data is True:
        parts[data] = external_data.split(proto, data.name)
    return {**parts, path: proto.SerializeToString(deterministic=True)}


def _write_beside(candidate: Path, parts: Mapping[Path, bytes]) -> None:
    """Write the files of a graph into the folder of its candidate."""
    for path, content in parts.items():
        with writing(path):
            (candidate.parent / path.name).write_bytes(content)


def _artifact(candidate: Path, parts: Mapping[Path, bytes], parity: Parity, seconds: float) -> Artifact:
    """The facts, read back from the file: nothing that was asked for is trusted."""
    from compressor.measure import size
    from compressor.onnx_graphs import walk
    from compressor.runtimes import loading
    from compressor.runtimes.onnx_runtime import describe
    from exporters.passes import tidy, versions

    *data, (_, content) = parts.items()
    proto = loading.read(candidate)
    opset = walk.opset(proto)
    operators = tidy.operators(proto)
    return Artifact(
        format="onnx",
        path=candidate.name,
        bytes=sum(len(part) for part in parts.values()),
        gzip_bytes=sum(size.gzip_bytes(candidate.parent / path.name) for path in parts),
        sha256=hashlib.sha256(content).hexdigest(),
        parts=tuple(_part(path, weights) for path, weights in data),
        needs=versions.needs(opset, proto.ir_version, operators),
        opset=opset,
        ir_version=proto.ir_version,
        inputs=tuple(tidy.describe(value) for value in proto.graph.input),
        outputs=tuple(tidy.describe(value) for value in proto.graph.output),
        operators=operators,
        parity=parity,
        runtime=describe(),
        seconds=seconds,
    )


def _part(path: Path, content: bytes) -> Part:
    return Part(path=path.name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), purpose="weights")
