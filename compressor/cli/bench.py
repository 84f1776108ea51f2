"""`compressor bench`: latency of exported files of any format, interleaved."""

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
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds; each loads every file afresh.")] = 40,
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
    json: JsonOption = False,
) -> None:
    """Time exported files against each other on the CPU: in turns, with an interval for the ratio.

    ONNX Runtime runs in this process, every other runtime in one of its own, where its runs are timed.

    Of a step file one step is timed; where its states grow, they are those of a sequence of the length given.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no file `{path}`", hint="give exported files, such as model.onnx or model.mnn")
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
            rounds=rounds,
            runs=runs,
            progress=progress,
        )
    if json:
        emit_json(_facts(paths, timed, ratios))
    else:
        _show(paths, timed, ratios)


def _inputs(path: Path, task: str | None, batch: int, length: int | None) -> "tuple[tuple[Tensor, ...], int]":
    """Inputs of a file, and how many positions one run takes; a step file runs behind `length` - that many others."""
    from compressor.measure.runtime_file import open_file
    from compressor.measure.steps import Steps, initial_state, read_info

    loaded = None
    if task is not None:
        from compressor import task as tasks

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
            "bytes": path.stat().st_size,
            "latency": latency.model_dump(mode="json"),
            "speedup": ratios[index - 1].model_dump(mode="json") if index else None,
        }
        for index, (path, latency) in enumerate(zip(paths, timed, strict=True))
    ]


def _show(paths: "Sequence[Path]", timed: "Sequence[Latency]", ratios: "Sequence[SpeedUp]") -> None:
    rows = [
        (
            str(path),
            f"{path.stat().st_size / 1024:.1f}",
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
