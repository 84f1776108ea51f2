"""Arguments that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from compressor.cli import completion
from compressor.cli.output import say
from compressor.errors import UsageError
from compressor.render.trackers import Tracker
from compressor.task.spec import split_spec


def argument(metavar: str, help_text: str, complete: Callable[..., list[str]]) -> Any:
    """An argument that has no default to show; `complete` gives the shell the words that may stand there."""
    return typer.Argument(metavar=metavar, help=help_text, autocompletion=complete, show_default=False)


def task_option(help_text: str) -> Any:
    """The option `--task`."""
    return typer.Option(
        "--task",
        metavar="FILE.py[:NAME]",
        help=help_text,
        autocompletion=completion.python_files,
        show_default=False,
    )


def shape_option(help_text: str) -> Any:
    """The option `--shape`, which may be repeated; see `axis_sizes`."""
    return typer.Option("--shape", metavar="AXIS=SIZE", help=f"{help_text} Repeatable.")


RecipeArgument = Annotated[
    str, argument("RECIPE", "Name of a shipped recipe or path of a YAML file.", completion.recipe_names)
]
RunArgument = Annotated[str, typer.Argument(metavar="DIR", help="Folder of a finished run.", show_default=False)]
TaskOption = Annotated[str, task_option("Python file with a `compressor.Task`; NAME if it has several.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the recipe, such as steps.0.ratio=0.7. Repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
ThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads", min=1, max=256, metavar="N", help="CPU threads of ONNX Runtime while latency is measured."
    ),
]
LogOption = Annotated[
    Tracker | None,
    typer.Option(
        "--log",
        help="Also send curves and results there, by the tool's own client and settings.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|mps|xpu",
        help="Where to compress: the CPU, or an accelerator of PyTorch. auto takes the accelerator if there is one.",
        autocompletion=completion.devices,
    ),
]


def announce(task: str) -> None:
    """Say at once what is loaded: PyTorch alone takes seconds. A file that is missing is an error of its own."""
    if Path(split_spec(task)[0]).is_file():
        say(f"loading {task}")


def refuse_folder(out: str | Path | None) -> None:
    """Refuse a folder where a file is to be written, before any work; raises `UsageError`."""
    if out is not None and Path(out).is_dir():
        raise UsageError(f"--out is the folder `{out}`, and a file is written", hint="give the path of a file")


def axis_sizes(given: list[str]) -> dict[str, int]:
    """The sizes of `--shape AXIS=SIZE`; raises `UsageError` for anything else."""
    sizes = {}
    for text in given:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise UsageError(f"--shape takes AXIS=SIZE, not `{text}`", hint="such as --shape time=32")
        sizes[name] = int(size)
    return sizes
