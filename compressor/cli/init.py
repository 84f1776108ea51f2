"""`compressor init`: a task and a recipe for a model, written and tried."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.cli import completion
from compressor.cli.output import say, tell


def init(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="FILE.py[:NAME], package.module:NAME, or a Hugging Face folder. NAME is a class, a function or a "
            'module; with arguments if it needs some: "model.py:Tagger(40, units=128)".',
            autocompletion=completion.python_files,
            show_default=False,
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="Weights that are loaded into it.")
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            "--example",
            metavar="PYTHON",
            help='What the model takes, such as "torch.randn(batch, length, 40)". [default: found by calling it]',
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.py", help="The task file or its folder. [default: task.py beside MODEL, or here]"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a task for a model that runs as it is, and a recipe that fits what is in the model.

    The arguments of `forward` are found by calling it with what its signature and layers suggest. The metric is
    fidelity to the original's outputs, which needs no labels, until you put yours in.
    """
    say(f"loading {model}")
    from compressor.cli.progress import Terminal
    from compressor.starting.first_task import write

    place = out if out is not None else _beside(model)
    place = place / "task.py" if place.is_dir() else place
    with Terminal() as progress:
        written = write(model, place, checkpoint=checkpoint, example=example, force=force, progress=progress)
    say("")
    tell(f"wrote {written.task} and {written.recipe}: {written.parameters:,} parameters, {written.what}")
    tell(f"the model takes {written.example}")
    if written.random:
        say("The weights are random: give --checkpoint FILE, or load the trained ones in `model` of the task.")
    say("Next, with --quick as a rehearsal:")
    say(f"  compressor inspect --task {written.task}")
    say(f"  compressor run {written.recipe} --task {written.task} --out runs/first --quick")
    say(f"  compressor run {written.recipe} --task {written.task} --out runs/first")


def _beside(model: str) -> Path:
    """`task.py` in the folder of the model's file; of packages and of Hugging Face in the working folder."""
    file, found, _ = model.partition(".py")
    return Path(file).parent / "task.py" if found else Path("task.py")
