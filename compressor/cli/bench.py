"""`compressor bench`: latency of exported files of any format, in turns, on this machine or on a phone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption, ThreadsOption
from compressor.cli.output import columns, emit_json, emit_rich, say
from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.report import Latency, SpeedUp, TensorInfo

_DEFAULT_LENGTH: Final = 32
_BATCH_NAMES: Final = ("batch", "b", "n")
_ROUNDS: Final = 40
_PHONE_ROUNDS: Final = 15
_COOL_DOWN: Final = 2.0
_ANY: Final = "any"


def bench(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Exported files of any format that take the same inputs; the first is the baseline.",
            autocompletion=completion.onnx_files,
            show_default=False,
        ),
    ],
    batch: Annotated[int, typer.Option("--batch", min=1, help="Batch size.")] = 1,
    length: Annotated[
        int | None, typer.Option("--length", min=1, help=f"Length. [default: the task's, or {_DEFAULT_LENGTH}]")
    ] = None,
    threads: ThreadsOption = 1,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            min=1,
            help=f"Rounds; each loads every file afresh. [default: {_ROUNDS}; {_PHONE_ROUNDS} on a phone]",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed runs of each file in a round.")] = 10,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="FILE.py[:NAME]",
            help="Take the inputs from this task; they are made up otherwise.",
            autocompletion=completion.python_files,
        ),
    ] = None,
    adb: Annotated[
        str | None,
        typer.Option(
            "--adb",
            metavar="[SERIAL]",
            help="Time them on a phone that `adb` reaches; SERIAL where several are connected.",
            show_default=False,
        ),
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(
            "--runner",
            metavar="FILE",
            help="With --adb: onnxruntime_perf_test or benchncnn, built for the phone; or python:COMMAND, which starts "
            "a Python there that has ONNX Runtime.",
        ),
    ] = None,
    push: Annotated[
        list[str] | None,
        typer.Option("--push", metavar="FILE", help="With --adb: lay this beside the runner too. Repeatable."),
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option("--shapes", metavar="[W,H],...", help="For benchncnn: shapes of inputs, innermost axis first."),
    ] = None,
    cool_down: Annotated[
        float | None,
        typer.Option(
            "--cool-down",
            min=0.0,
            metavar="SECONDS",
            help=f"With --adb: rest between rounds. [default: {_COOL_DOWN:g}]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Time exported files against each other, in turns, with an interval for the ratio: on this machine, or on a phone.

    ONNX Runtime runs in this process, every other runtime in one of its own, where its runs are timed.

    Of a step file one step is timed; where its states grow, they are those of a sequence of the length given.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no file `{path}`", hint="give exported files, such as model.onnx or model.mnn")
    if adb is None:
        for name, given in (("runner", runner), ("push", push), ("shapes", shapes), ("cool-down", cool_down)):
            if given is not None:
                raise UsageError(f"`--{name}` is for a phone", hint="give --adb too, or leave it out")
    else:
        wish = _Wish(adb, runner, push or [], shapes, _COOL_DOWN if cool_down is None else cool_down)
        _on_phone(paths, wish, task, batch, length, threads, rounds or _PHONE_ROUNDS, runs, json)
        return
    from compressor.cli.progress import Terminal
    from compressor.measure import latency

    found = [_inputs(path, task, batch, length) for path in paths]
    with Terminal() as progress:
        timed, ratios = latency.compare(
            paths,
            [inputs for inputs, _ in found],
            batch=batch,
            length=found[0][1],
            threads=threads,
            rounds=rounds or _ROUNDS,
            runs=runs,
            progress=progress,
        )
    if json:
        emit_json(_facts(paths, timed, ratios))
    else:
        _show(paths, timed, ratios)


def with_serial(arguments: "Sequence[str]") -> list[str]:
    """The arguments, `--adb` with a word for any phone behind it where no serial number is."""
    found: list[str] = []
    for index, argument in enumerate(arguments):
        found.append(argument)
        if argument == "--adb":
            behind = arguments[index + 1] if index + 1 < len(arguments) else "-"
            if behind.startswith("-") or Path(behind).is_file():
                found.append(_ANY)
    return found


@dataclass(frozen=True)
class _Wish:
    """What is asked for of a phone."""

    serial: str
    runner: str | None
    push: list[str]
    shapes: str | None
    cool_down: float


def _on_phone(
    paths: "Sequence[Path]",
    wish: _Wish,
    task: str | None,
    batch: int,
    length: int | None,
    threads: int,
    rounds: int,
    runs: int,
    json: bool,
) -> None:
    if wish.runner is None:
        raise UsageError(
            "a phone needs a program that runs the files",
            hint="--runner onnxruntime_perf_test or benchncnn, built for the phone, or --runner python:COMMAND; see "
            "docs/guides/on-a-phone.md",
        )
    extras = [Path(extra) for extra in wish.push]
    for extra in extras:
        if not extra.is_file():
            raise UsageError(f"there is no file `{extra}`", hint="--push lays files beside the runner")
    from compressor.cli.progress import Terminal
    from compressor.measure import phone

    program = phone.runner(wish.runner, wish.shapes)
    for path in paths:
        if path.suffix not in program.suffixes:
            raise UsageError(
                f"{program.name} does not run `{path}`", hint=f"it runs files in {' or '.join(program.suffixes)}"
            )
    device = phone.Phone.connect(None if wish.serial == _ANY else wish.serial)
    subjects, positions = [], length or _DEFAULT_LENGTH
    for path in paths:
        feed = {}
        if program.takes_inputs:
            from compressor.runtimes.onnx_runtime import OnnxFile

            inputs, positions = _inputs(path, task, batch, length)
            feed = OnnxFile(path).feed(inputs)
        subjects.append(phone.Subject(path, feed))
    with Terminal() as progress:
        timed, ratios = phone.compare(
            device,
            program,
            subjects,
            batch=batch,
            length=positions,
            threads=threads,
            rounds=rounds,
            runs=runs,
            cool_down=wish.cool_down,
            push=extras,
            progress=progress,
        )
    if json:
        emit_json([fact | {"device": device.serial} for fact in _facts(paths, timed, ratios)])
    else:
        _show(paths, timed, ratios)


def _inputs(path: Path, task: str | None, batch: int, length: int | None) -> "tuple[tuple[Tensor, ...], int]":
    """Inputs of a file, and how many positions one run takes; a step file runs behind `length` - that many others."""
    from compressor.runtimes.runtime_file import open_file
    from compressor.runtimes.steps import Steps, initial_state, read_info

    loaded = None
    if task is not None:
        from compressor.task import loading as tasks

        loaded = tasks.load(task)
        length = loaded.length if length is None else length
    length = _DEFAULT_LENGTH if length is None else length
    file = open_file(path)
    file.close()  # what it says of itself is enough
    info = read_info(file)
    if info is None:
        made = tuple(made_up(item, batch=batch, length=length) for item in file.inputs) if loaded is None else ()
        return (made if loaded is None else loaded.example(batch, length)), length
    past = max(0, length - info.chunk)
    if loaded is not None:
        return tuple(Steps(path).one_step(loaded.example(batch, length), past=past)), info.chunk
    own = [made_up(item, batch=batch, length=length) for item in file.inputs[: -len(info.states)]]
    return (*own, *(initial_state(state, batch, past=past) for state in info.states)), info.chunk


def made_up(info: "TensorInfo", *, batch: int, length: int) -> "Tensor":
    """An input for a file about which nothing else is known.

    Floats are standard normal, an integer input that is called after lengths is filled with `length`, other integers
    are zeros, booleans are true. An axis named `batch`, or the first where no axis is, takes the batch size; other
    dynamic axes take the length.

    Raises:
        UsageError: The input has a type that PyTorch does not have.
    """
    import torch

    batch_axis = next((axis for axis, size in enumerate(info.shape) if str(size).lower() in _BATCH_NAMES), 0)
    shape = [
        size if isinstance(size, int) else batch if axis == batch_axis else length
        for axis, size in enumerate(info.shape)
    ]
    dtype = getattr(torch, info.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"no input can be made up for `{info.name}` of type {info.dtype}", hint="give --task")
    if dtype.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype)
    return torch.full(shape, length if "len" in info.name.lower() else 0, dtype=dtype)


def _facts(paths: "Sequence[Path]", timed: "Sequence[Latency]", ratios: "Sequence[SpeedUp]") -> list[dict[str, Any]]:
    return [
        {
            "file": str(path),
            "bytes": _bytes(path),
            "latency": latency.model_dump(mode="json"),
            "speedup": ratios[index - 1].model_dump(mode="json") if index else None,
        }
        for index, (path, latency) in enumerate(zip(paths, timed, strict=True))
    ]


def _bytes(path: "Path") -> int:
    """What a phone has to hold, weights in files of their own included."""
    from compressor.measure import size
    from compressor.runtimes.runtime_file import shipped

    return sum(size.file_bytes(part) for part in shipped(path))


def _show(paths: "Sequence[Path]", timed: "Sequence[Latency]", ratios: "Sequence[SpeedUp]") -> None:
    rows = [
        (
            str(path),
            f"{_bytes(path) / 1024:.1f}",
            *(f"{value:.3f}" for value in (latency.p10, latency.p50, latency.p90)),
            _ratio(ratios[index - 1]) if index else "baseline",
            latency.runtime,
        )
        for index, (path, latency) in enumerate(zip(paths, timed, strict=True))
    ]
    header = ("file", "KiB", "p10 ms", "p50 ms", "p90 ms", "speed-up", "in")
    emit_rich(columns(header, rows, right=header[1:5]))
    first = timed[0]
    say(
        f"batch {first.batch}, length {first.length}, threads {first.threads}, {first.runs} runs each after "
        f"{first.warmup} warm-up runs a round"
    )


def _ratio(speed_up: "SpeedUp") -> str:
    low, high = speed_up.interval.low, speed_up.interval.high
    noise = ", within noise" if speed_up.within_noise else ""
    return f"{speed_up.ratio:.2f}x ({low:.2f} to {high:.2f}{noise})"
