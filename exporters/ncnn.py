"""Files of ncnn (`.ncnn.param` and `.ncnn.bin`), converted by pnnx and checked in ncnn.

pnnx reads ONNX and TorchScript. Aaren and attention with a cache are wrong by way of ONNX and right from TorchScript;
an encoder layer fails from TorchScript and is right from ONNX; so both are tried, and what leaves was run. ncnn has no
axis of samples: a file takes one at a time.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from compressor.errors import ExportError
from compressor.report import TensorInfo
from compressor.runtimes import child, environments
from exporters.deliver import Candidate, Way, by_first_right_way, describe
from exporters.options import FixedLengthOptions
from exporters.prepare import workshop
from exporters.programs import pnnx
from exporters.source import onnx_file, remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from compressor.formats import Job
    from compressor.report import Artifact
    from compressor.runtimes.onnx_runtime import OnnxFile


class Options(FixedLengthOptions):
    """Options of `format: ncnn`."""

    ending: ClassVar[str] = "ncnn"
    format: Literal["ncnn"] = "ncnn"
    """The recipe word of this exporter."""
    route: Literal["auto", "onnx", "torch"] = "auto"
    """What pnnx reads; `auto`: ONNX, and TorchScript if that is wrong."""


def export(job: Job[Options]) -> Artifact:
    """Write `model` to two files of ncnn, `job.path.param` and `job.path.bin`, and their description.

    Raises:
        ExportError: ncnn or pnnx is not installed, or fails on the model.
        ParityError: What ncnn computes disagrees with PyTorch.
        OutputError: The files cannot be written.
    """
    program = pnnx.find_program(environments.need("ncnn"))
    with workshop(job.path) as folder:
        source, _ = onnx_file(job, folder, length=job.options.length)
        build = _Build(source, job, program)
        return by_first_right_way(
            build.ways(),
            folder,
            job,
            remedy=remedy(source, "ncnn", job.options, unrolls=True),
        )


class _Build:
    """The ways from one model to ncnn."""

    def __init__(self, source: Path, job: Job[Options], program: Path) -> None:
        from compressor.runtimes.onnx_runtime import OnnxFile
        from compressor.runtimes.steps import Steps

        self._source, self._model, self._task, self._path = source, job.model, job.task, job.path
        self._options, self._program = job.options, program
        self._file: OnnxFile = OnnxFile(source)
        self._steps = Steps(source, file=self._file) if self._options.form == "step" else None

    def ways(self) -> list[Way]:
        routes = ("onnx", "torch") if self._options.route == "auto" else (self._options.route,)
        ways = []
        for route in routes:
            if self._open:
                ways.append(Way(f"from {_TITLES[route]}", partial(self._convert, route=route, lengths=2)))
            name = f"from {_TITLES[route]}, traced at one length"
            ways.append(Way(name, partial(self._convert, route=route, lengths=1)))
        return ways

    def _convert(self, folder: Path, route: str, lengths: int) -> Candidate:
        model = folder / "model.onnx" if route == "onnx" else folder / "model.pt"
        examples = [self._example(number) for number in range(lengths)]
        if route == "onnx":
            model.write_bytes(self._source.read_bytes())
        else:
            self._trace(model, examples[0])
        param = folder / f"{self._path.name}.param"
        binary = param.with_suffix(".bin")
        shapes = [
            f"inputshape{'' if number == 0 else number + 1}={pnnx.shapes_of(own)}"
            for number, own in enumerate(examples)
        ]
        child.run(
            [
                str(self._program),
                str(model),
                *shapes,
                "fp16=0",
                f"ncnnparam={param}",
                f"ncnnbin={binary}",
                f"ncnnpy={folder / 'net.py'}",
            ],
            seconds=self._options.seconds,
            what=f"pnnx on {self._path.name}",
            environment={"OMP_NUM_THREADS": "1"},
        )
        if not (param.is_file() and binary.is_file()):
            raise ExportError("pnnx ended without an error and without files of ncnn")
        return self._candidate(param, binary, folder / "net.py")

    def _candidate(self, param: Path, binary: Path, example: Path) -> Candidate:
        layers = [line.split() for line in param.read_text().splitlines()[2:]]
        blobs = {words[0] for words in [layer[1:] for layer in layers if layer and layer[0] == "Input"]}
        names = {
            name for layer in layers if layer for name in layer[4 + int(layer[2]) : 4 + int(layer[2]) + int(layer[3])]
        }
        inputs, outputs = self._file.inputs, self._file.outputs
        inputs_taken = [f"in{number}" if f"in{number}" in blobs | names else None for number in range(len(inputs))]
        outputs_given = [f"out{number}" for number in range(len(outputs))]
        missing = [name for name in outputs_given if name not in names]
        if missing or len(blobs) > len(inputs):
            raise ExportError(f"pnnx wrote a net whose inputs and outputs are not those of the model ({missing})")
        from compressor.runtimes.steps import METADATA_KEY

        kept = {key: value for key, value in self._file.metadata.items() if key == METADATA_KEY}
        dropped = pnnx.dropped_axes(example.read_text(encoding="utf-8"))
        beside = describe(
            param,
            "ncnn",
            "ncnn",
            [self._alone(item, self._batch(item, self._task.inputs)) for item in inputs],
            [self._alone(item, self._batch(item, self._task.outputs)) for item in outputs],
            metadata=kept,
            details={
                "blobs_in": json.dumps(inputs_taken),
                "blobs_out": json.dumps(outputs_given),
                "dropped_in": json.dumps([dropped.get(name or "") for name in inputs_taken]),
                "dropped_out": json.dumps([dropped.get(name) for name in outputs_given]),
            },
        )
        operators: dict[str, int] = {}
        for layer in layers:
            if layer and layer[0] not in ("Input", "Split"):
                operators[layer[0]] = operators.get(layer[0], 0) + 1
        return Candidate(
            param, "ncnn", {binary: "weights"}, {beside: "inputs, outputs, their blobs, and states"}, operators
        )

    def _batch(self, item: TensorInfo, named: Mapping[str, Mapping[int, str]]) -> int | None:
        """The axis of samples: the task's, and the first of a state."""
        if item.name in named:
            return next((axis for axis, word in named[item.name].items() if word == "batch"), None)
        return 0

    def _alone(self, item: TensorInfo, batch: int | None) -> TensorInfo:
        shape = tuple(
            1 if axis == batch else self._options.length if size == "time" and self._options.length else size
            for axis, size in enumerate(item.shape)
        )
        return TensorInfo(name=item.name, dtype=item.dtype, shape=shape)

    @property
    def _open(self) -> bool:
        """Whether an axis is to stay open: a length, or the positions that a state keeps."""
        if self._steps is not None:
            return self._steps.info.grows
        return self._options.length is None and self._task.min_length < self._task.max_length

    def _example(self, number: int) -> tuple[Tensor, ...]:
        """Inputs of one sample, as the ONNX file takes them; of another size if `number` is 1."""
        task = self._task
        typical = self._options.length or max(min(2, task.max_length), min(task.length, task.max_length))
        if self._steps is not None:
            return tuple(self._steps.one_step(task.example(1, typical), past=(4, 9)[number]))
        other = task.max_length if typical != task.max_length else max(task.min_length, typical - 1)
        return task.example(1, (typical, other)[number])

    def _trace(self, target: Path, example: Sequence[Tensor]) -> None:
        import torch

        from compressor.nn.attention.plain import plain_attention
        from exporters.prepare import private_copy
        from exporters.stepping.find import step_module

        model = private_copy(self._model)
        if self._options.form == "step":
            model = step_module(model, self._task, chunk=self._options.chunk)
        try:
            with torch.no_grad(), plain_attention(), _quiet():
                traced = torch.jit.trace(model, tuple(example), check_trace=False)
                if self._options.form == "step":
                    # pnnx crashes on modules of ours; whole models stay as they are, for it knows `nn.LSTM` by name
                    traced = torch.jit.freeze(traced)
                traced.save(str(target))
        except Exception as error:  # whatever tracing and the model's code raise
            raise ExportError(
                f"TorchScript cannot trace the model: {type(error).__name__}: {str(error)[:200]}"
            ) from error


_TITLES = {"onnx": "ONNX", "torch": "TorchScript"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript warns that it is old, and of every shape that it fixes; what it fixed shows in the comparison."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
