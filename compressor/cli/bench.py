"""`compressor bench`: latency of exported files of any format, interleaved, on this machine or on a phone."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption, ThreadsOption, argument, task_option
from compressor.cli.bench_phone import COOL_DOWN, PhoneOptions, Repeats, time_on_phone
from compressor.cli.output import columns, emit_json, emit_rich, say
from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.report import Latency, SpeedUp
    from compressor.task.contract import Task
    from compressor.task.guard import GuardedTask

_DEFAULT_LENGTH: Final = 32
_ROUNDS: Final = 40
_PHONE_ROUNDS: Final = 15


def bench(
    files: Annotated[
        list[str],
        argument(
            "FILE...",
            "Exported files of any format that take the same inputs; the first is the baseline.",
            completion.onnx_files,
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
    task: Annotated[str | None, task_option("Task that gives the inputs. [default: random inputs]")] = None,
    adb: Annotated[
        str | None,
        typer.Option(
            "--adb",
            metavar="[SERIAL]",
            help="Time them on a phone that `adb` reaches; SERIAL if several are connected.",
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
        typer.Option("--push", metavar="FILE", help="With --adb: copy this file beside the runner. Repeatable."),
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
            help=f"With --adb: rest between rounds. [default: {COOL_DOWN:g}]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Time exported files against each other, on this machine or on a phone.

    Runs of the files are interleaved, and each speed-up comes with a 95 % confidence interval. ONNX Runtime runs in
    this process, every other runtime in a process of its own.

    For a step file, one step is timed. States that grow have the size that they have at the end of --length.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no file `{path}`", hint="give exported files, such as model.onnx or model.mnn")
    phone = {"runner": runner, "push": push, "shapes": shapes, "cool-down": cool_down}
    for name, value in phone.items():
        if adb is None and value is not None:
            raise UsageError(f"`--{name}` is for a phone", hint="give --adb too, or leave it out")
    say(f"loading {', '.join(files)}")
    loaded = None
    if task is not None:
        from compressor.task.loading import load

        loaded = load(task)
    inputs = partial(file_inputs, given=loaded, batch=batch, length=length)
    if adb is not None:
        rest = COOL_DOWN if cool_down is None else cool_down
        options = PhoneOptions(adb, runner, tuple(map(Path, push or ())), shapes, rest)
        repeats = Repeats(batch, length or _DEFAULT_LENGTH, threads, rounds or _PHONE_ROUNDS, runs)
        timed, ratios, serial = time_on_phone(paths, options, inputs, repeats)
        _give(paths, timed, ratios, json=json, device=serial)
        return
    from compressor.cli.progress import Terminal
    from compressor.measure import latency

    feeds = [inputs(path) for path in paths]
    sequences = any(_takes_length(path) for path in paths)
    with Terminal() as progress:
        timed, ratios = latency.compare(
            paths,
            [tensors for tensors, _ in feeds],
            batch=batch,
            length=feeds[0][1],
            threads=threads,
            rounds=rounds or _ROUNDS,
            runs=runs,
            progress=progress,
        )
    _give(paths, timed, ratios, json=json, sequences=sequences)


def _takes_length(path: Path) -> bool:
    from compressor.measure.random_inputs import has_length
    from compressor.runtimes.runtime_file import open_file
    from compressor.runtimes.steps import read_info

    file = open_file(path)
    file.close()
    return has_length(file) or read_info(file) is not None


def file_inputs(
    path: Path, given: "GuardedTask | None", batch: int, length: int | None
) -> "tuple[tuple[Tensor, ...], int]":
    """Inputs of a file, and how many positions a run takes; of a step file a step late in a sequence of `length`."""
    from compressor.measure.random_inputs import random_inputs
    from compressor.pipeline.file_task import task_of_file
    from compressor.runtimes.runtime_file import open_file
    from compressor.runtimes.steps import Steps, initial_state, read_info

    task = None if given is None else task_of_file(given, path)
    if length is None:
        length = _DEFAULT_LENGTH if task is None else task.length
    if task is not None:
        _refuse_sizes(task, batch, length)
    file = open_file(path)
    file.close()  # what it says of itself is enough
    info = read_info(file)
    if info is None:
        whole = random_inputs(file, batch=batch, length=length) if task is None else task.example(batch, length)
        return whole, length
    past = max(0, length - info.chunk)
    if task is not None:
        return tuple(Steps(path).one_step(task.example(batch, length), past=past)), info.chunk
    inputs = random_inputs(file, batch=batch, length=length, states=len(info.states))
    return (*inputs, *(initial_state(state, batch, past=past) for state in info.states)), info.chunk


def _refuse_sizes(task: "Task", batch: int, length: int) -> None:
    """Raise `UsageError` for sizes that the task's example should not be asked for."""
    from compressor.runtimes.resources import refuse_larger

    if length > task.max_length:
        raise UsageError(
            f"--length {length} is more than the task's `max_length`, {task.max_length}", hint="give a smaller --length"
        )
    one = sum(part.numel() * part.element_size() for part in task.example(1, length))
    refuse_larger(one * batch, f"an example of batch size {batch}", "give a smaller --batch")


def _give(
    paths: "Sequence[Path]",
    timed: "Sequence[Latency]",
    ratios: "Sequence[SpeedUp]",
    *,
    json: bool,
    sequences: bool = True,
    **more: Any,
) -> None:
    """The latencies as a table or as JSON, there with `more` facts in each entry; `sequences`: they have a length."""
    if json:
        emit_json([fact | more for fact in _facts(paths, timed, ratios)])
    else:
        _table(paths, timed, ratios, sequences)


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


def _table(paths: "Sequence[Path]", timed: "Sequence[Latency]", ratios: "Sequence[SpeedUp]", sequences: bool) -> None:
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
    length = f"length {first.length}, " if sequences else ""
    say(
        f"batch {first.batch}, {length}threads {first.threads}, {first.runs} runs each after "
        f"{first.warmup} warm-up runs a round"
    )


def _ratio(speed_up: "SpeedUp") -> str:
    low, high = speed_up.interval.low, speed_up.interval.high
    noise = ", within noise" if speed_up.within_noise else ""
    return f"{speed_up.ratio:.2f}x ({low:.2f} to {high:.2f}{noise})"
