"""`compressor draw automaton`: the automaton of a run, as tables and as a figure."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.arguments import RunArgument, TaskOption, announce
from compressor.cli.output import say
from compressor.errors import UsageError


def automaton(
    folder: RunArgument,
    task: TaskOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the three files.")],
) -> None:
    """Write the automaton that a run with the step `automaton` made: automaton.json, automaton.dot, automaton.svg."""
    announce(task)
    from compressor import checkpoint
    from compressor.files import write_whole, writing
    from compressor.nn.automaton import Automaton
    from compressor.render.automaton import dot, svg, tables
    from compressor.task import loading

    model = checkpoint.load(folder, loading.load(task))
    found = next((module for module in model.modules() if isinstance(module, Automaton)), None)
    if found is None:
        raise UsageError(f"the run in {folder} made no automaton", hint="run a recipe with the step `automaton`")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    drawn = {"json": tables(found), "dot": dot(found), "svg": svg(found, "automaton")}
    for kind, text in drawn.items():
        write_whole(out / f"automaton.{kind}", text.encode())
        say(f"wrote {out / f'automaton.{kind}'}")
