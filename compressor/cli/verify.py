"""`compressor verify`: does a file give the same numbers on another processor?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption, argument, task_option
from compressor.cli.output import columns, emit_json, emit_rich, say
from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from compressor.report import Parity
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.task.guard import GuardedTask

_DEFAULT_LENGTH: Final = 32
_STEPS: Final = 8
"""A step file is run so often before the step that is compared, so that its states hold something."""
_ROUNDING: Final = ("MatMulNBits", "MatMulInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "QuantizeLinear")
"""Operators after which a difference in the last bit of an input may grow to one step of rounding."""
_ROUNDING_ERROR: Final = 2e-2
"""In parts of the largest output: recurrent layers carry such steps on, and a small output may hold large ones."""


def verify(
    files: Annotated[
        list[str] | None,
        argument("FILE...", "Exported files.", completion.onnx_files),
    ] = None,
    arch: Annotated[
        Literal["aarch64", "cortex-m4", "cortex-m7"] | None,
        typer.Option("--arch", help="The processor, emulated by qemu: aarch64 for .onnx and .ort, cortex-m for .c."),
    ] = None,
    setup: Annotated[
        bool, typer.Option("--setup", help="First fetch what the emulation needs into the user's cache folder.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option("--mirror", metavar="URL", help="Debian mirror for --setup. [default: this system's own]"),
    ] = None,
    task: Annotated[
        str | None,
        task_option("Take inputs, at several batch sizes and lengths, from this task. [default: random inputs]"),
    ] = None,
    length: Annotated[int, typer.Option("--length", min=1, help="Length of random inputs.")] = _DEFAULT_LENGTH,
    atol: Annotated[
        float | None,
        typer.Option(
            "--atol", min=0.0, help="Absolute tolerance. [default: 1e-5; if it rounds, 2e-2 of the largest output]"
        ),
    ] = None,
    rtol: Annotated[
        float | None, typer.Option("--rtol", min=0.0, help="Relative tolerance. [default: 1e-4; 1e-2 if it rounds]")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run files on another processor, emulated, and compare with what they give here.

    ONNX files in ONNX Runtime; generated C on a board, with its flash, RAM and instructions. Tells whether the numbers
    are right there, never how fast they come. Exits with 1 if a file disagrees.
    """
    if arch is None:
        raise UsageError("no processor given", hint="give --arch aarch64, cortex-m4 or cortex-m7")
    paths = [Path(file) for file in files or ()]
    if arch != "aarch64":
        if setup or mirror or task:
            raise UsageError(
                f"--setup, --mirror and --task do not go with --arch {arch}",
                hint="its packages are those of your system; inputs are those of the proof beside each file",
            )
        from compressor.cli.boards import verify_on_board

        verify_on_board(paths, arch, atol, as_json=json)
        return
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no file `{path}`", hint="give exported .onnx files")
    if not paths and not setup:
        raise UsageError("no file to verify", hint="give exported .onnx files, or --setup alone")
    from compressor.cli.progress import Terminal
    from compressor.runtimes.emulation import machine as emulated
    from compressor.runtimes.emulation import running
    from compressor.runtimes.emulation.setup import prepare

    with Terminal() as progress:
        machine = prepare(mirror, progress) if setup else emulated.find()
        say(f"{machine.describe()}, in {emulated.folder()}")
        if not paths:
            return
        from compressor.task.loading import load

        loaded = None if task is None else load(task)
        cases = [_cases(path, loaded, length) for path in paths]
        jobs = [running.Job(path, case.arrays) for path, own in zip(paths, cases, strict=True) for case in own]
        outcomes, runtime = running.run(machine, jobs, progress)
    results = []
    for path, own in zip(paths, cases, strict=True):
        results.append(_parity(path, own, outcomes[: len(own)], atol, rtol))
        outcomes = outcomes[len(own) :]
    if json:
        facts = {"arch": arch, "emulated": True, "machine": machine.describe(), "runtime": runtime}
        emit_json(
            [
                {"file": str(path), **facts, "agrees": parity.passed, "parity": parity.model_dump(mode="json")}
                for path, parity in zip(paths, results, strict=True)
            ]
        )
    else:
        _show(paths, results)
    say(f"emulation: {runtime} under qemu. This says that the numbers are right there, and nothing about speed.")
    if not all(parity.passed for parity in results):
        raise typer.Exit(1)


class _Case:
    """One run of a file: its inputs, and what it gives here."""

    def __init__(self, file: "OnnxFile", inputs: "Sequence[Tensor]", batch: int, length: int) -> None:
        feed = file.feed(inputs)
        self.batch, self.length = batch, length
        self.arrays = list(feed.values())
        self.expected = file.run(feed)


def _cases(path: Path, given: "GuardedTask | None", length: int) -> list[_Case]:
    """What a file is run on."""
    from compressor.errors import ExportError
    from compressor.measure import parity
    from compressor.measure.random_inputs import random_inputs
    from compressor.pipeline.file_task import task_of_file
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.runtimes.steps import Steps, initial_state, read_info

    task = None if given is None else task_of_file(given, path)
    file = OnnxFile(path)
    info = read_info(file)
    points = parity.points(task) if task is not None else ((1, length), (3, length // 2 + 1))
    fixed = None if info is None else info.states[0].shape[0]
    if isinstance(fixed, int):
        points = tuple((fixed, long) for _, long in points)
    found = []
    for batch, long in points:
        if info is None:
            inputs = random_inputs(file, batch=batch, length=long) if task is None else task.example(batch, long)
        elif task is None:
            features = random_inputs(file, batch=batch, length=long, states=len(info.states))
            inputs = _warm(file, features, [initial_state(state, batch) for state in info.states])
        else:
            step = Steps(path).one_step(task.example(batch, long), past=0)
            inputs = _warm(file, step[: -len(info.states)], step[-len(info.states) :])
        try:
            found.append(_Case(file, inputs, batch, long))
        except (ExportError, UsageError) as error:
            if task is not None:
                raise
            raise type(error)(error.message, hint="random inputs do not suit it: give --task") from error
    return found


def _warm(file: "OnnxFile", features: "Sequence[Tensor]", states: "Sequence[Tensor]") -> "tuple[Tensor, ...]":
    """The inputs of a step, its states those after some steps on the same inputs."""
    for _ in range(_STEPS):
        outputs = file(*features, *states)
        assert isinstance(outputs, tuple)
        states = outputs[-len(states) :]
    return (*features, *states)


def _parity(
    path: Path, cases: "Sequence[_Case]", outcomes: "Sequence[Any]", atol: float | None, rtol: float | None
) -> "Parity":
    import torch

    from compressor.measure.agreement import Tolerances, compare, wrong
    from compressor.report import Parity

    usual = (1e-5, 1e-4)
    if _rounds(path):
        usual = (_ROUNDING_ERROR * max(1e-3, *(_largest(case.expected) for case in cases)), 1e-2)
    absolute, relative = usual[0] if atol is None else atol, usual[1] if rtol is None else rtol
    points = []
    for case, outcome in zip(cases, outcomes, strict=True):
        if isinstance(outcome, str):
            points.append(wrong(case.batch, case.length, outcome))
            continue
        both = (tuple(torch.from_numpy(array) for array in arrays) for arrays in (case.expected, outcome))
        points.append(
            compare(
                *both,
                batch=case.batch,
                length=case.length,
                tolerances=Tolerances(absolute, relative),
                reference="this machine",
            )
        )
    return Parity(atol=absolute, rtol=relative, points=tuple(points))


def _largest(arrays: "Sequence[NDArray[Any]]") -> float:
    """The largest absolute value of all numbers that are not whole."""
    return max((float(abs(array).max(initial=0.0)) for array in arrays if array.dtype.kind == "f"), default=0.0)


def _rounds(path: Path) -> bool:
    """Whether a file rounds to integers or half precision on its way."""
    import onnx

    if path.suffix == ".ort":  # ONNX Runtime's own format, which onnx does not read
        return False
    model = onnx.load(path, load_external_data=False)
    half = any(item.data_type == onnx.TensorProto.FLOAT16 for item in model.graph.initializer)
    return half or any(f'op_type: "{name}"' in str(model.graph.node) for name in _ROUNDING)


def _show(paths: "Sequence[Path]", results: "Sequence[Parity]") -> None:
    rows = [
        (
            str(path),
            str(len(parity.points)),
            f"{max(point.max_absolute for point in parity.points):.1e}",
            f"{max(point.max_relative for point in parity.points):.1e}",
            f"{parity.atol:g} + {parity.rtol:g} |x|",
            "agrees" if parity.passed else "DISAGREES",
        )
        for path, parity in zip(paths, results, strict=True)
    ]
    header = ("file", "runs", "max abs", "max rel", "tolerance", "emulated aarch64")
    emit_rich(columns(header, rows, right=header[1:4]))
    for path, parity in zip(paths, results, strict=True):
        for point in parity.points:
            if not point.within:
                say(f"{path}, batch {point.batch}, length {point.length}: {point.note or 'too large a difference'}")
