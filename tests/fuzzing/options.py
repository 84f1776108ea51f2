"""Command lines: every command with random options and values, on files that are no good."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.fuzzing.values import ESCAPE
from tests.fuzzing.verdict import Case, Outcome, of_command

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path

    from tests.fuzzing.verdict import Expected

NEVER = {("runtimes", "install"), ("verify",), ("doctor",), ("init",)}
"""Commands that fetch, that look for programs, or whose argument is a program."""
_HARMLESS = ("--help", "--install-completion", "--show-completion", "--setup")
_VALUES = (
    *(
        "",
        " ",
        "-",
        "--",
        "0",
        "-1",
        "1",
        "2",
        "10" * 30,
        "1e999",
        "nan",
        "0.5",
        "50%",
        "true",
        "a,b",
        "a=b",
        "=",
        "a=",
    ),
    *("x" * 300, "/".join(["d" * 100] * 60), ESCAPE, "caf\udce9", "é", "~x", ".", "/dev/zero", "/dev/null"),
    *(
        "quickstart",
        "quickstrat",
        "cpu",
        "onnx",
        "nnapi",
        "json",
        "json:1",
        "steps.0.ratio=2",
        "*",
        "re:(",
        "%s",
        "{0}",
    ),
)
MUST_REFUSE: dict[str, tuple[str, ...]] = {
    "an unknown command": ("validat",),
    "a command that fills clipboards": (ESCAPE,),
    "an unknown option": ("report", "--bogus"),
    "bytes that are no text": ("report", "caf\udce9"),
    "a name of 300 characters": ("report", "x" * 300),
    "a path of 6,000 characters": ("validate", "/".join(["d" * 100] * 60)),
    "a pipe as a recipe": ("validate", "pipe"),
    "a device as a report": ("report", "/dev/zero"),
    "a million threads": ("run", "quickstart", "--task", "task.py", "--out", "out", "--threads", "1000000"),
    "a key 2,000 deep": ("validate", "quickstart", "--set", ".".join("a" * 2000) + "=1"),
    "a task that raises": ("run", "quickstart", "--task", "task.py", "--out", "out"),
    "a task that raises what fills clipboards": ("inspect", "--task", "task.py"),
    "a folder as a task": ("run", "quickstart", "--task", "folder", "--out", "out"),
    "a pipe as a task": ("inspect", "--task", "pipe.py"),
    "a device as a folder": ("run", "quickstart", "--task", "task.py", "--out", "/dev/null"),
    "a pipe as an ONNX file": ("check", "pipe", "--target", "nnapi"),
    "a pipe to bench": ("bench", "pipe"),
    "rounds without end": ("bench", "text.onnx", "--rounds", "1" * 30),
    "a copy over a device": ("recipes", "copy", "quickstart", "/dev/null", "--force"),
    "a target that is none": ("check", "text.onnx", "--target", ESCAPE),
}


@cache
def commands() -> dict[tuple[str, ...], list[Any]]:
    """The words of each command -> its parameters, as click has them."""
    from compressor.cli.app import command as whole_command

    found: dict[tuple[str, ...], list[Any]] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*words, name))
        if not hasattr(command, "commands"):
            found[words] = list(command.params)

    walk(whole_command(), ())
    return {words: parameters for words, parameters in found.items() if words not in NEVER}


def case(draw: random.Random, folder: Path) -> Case:
    """A random command line in `folder`."""
    if draw.random() < 0.3:
        return listed(draw.choice(list(MUST_REFUSE)), folder)
    words = _random_line(draw)
    return _in(folder, words, " ".join(words)[:200], "either")


def listed(what: str, folder: Path) -> Case:
    """One of the list."""
    return _in(folder, MUST_REFUSE[what], what, "refused")


def _in(folder: Path, words: Sequence[str], what: str, expected: Expected) -> Case:
    """A command line in a folder that holds a task that raises, a pipe, a folder and a text."""
    (folder / "task.py").write_text(f"raise ValueError({ESCAPE!r})\n")
    (folder / "text.onnx").write_text("hello")
    (folder / "folder").mkdir()
    for pipe in ("pipe", "pipe.py"):
        os.mkfifo(folder / pipe)

    def run() -> Outcome:
        with contextlib.chdir(folder):
            outcome = of_command(*words)
        return Outcome(outcome.refused, outcome.said, outcome.crash or _touched(folder))

    return Case(what, expected, run)


def _touched(folder: Path) -> str:
    """What should not have been replaced and was."""
    pipes = all((folder / name).is_fifo() for name in ("pipe", "pipe.py"))
    return "" if pipes and (folder / "text.onnx").read_text() == "hello" else "a file was replaced"


def _random_line(draw: random.Random) -> list[str]:
    words, parameters = draw.choice(list(commands().items()))
    line = list(words)
    for parameter in parameters:
        needed = getattr(parameter, "required", False)
        if parameter.param_type_name == "argument":
            line += [_value(draw) for _ in range(draw.choice((1, 1, 2, 0)))]
        elif not set(parameter.opts) & set(_HARMLESS) and draw.random() < (0.9 if needed else 0.2):
            line.append(draw.choice([*parameter.opts, *parameter.secondary_opts]))
            line += [] if parameter.is_flag else [_value(draw)]
    return line


def _value(draw: random.Random) -> str:
    return draw.choice((*_VALUES, "task.py", "text.onnx", "pipe", "pipe.py", "folder", "missing.yaml"))
