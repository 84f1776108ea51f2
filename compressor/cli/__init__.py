"""The command line; `main` is the entry point."""

from __future__ import annotations

import io
import sys
import traceback
from typing import TYPE_CHECKING, Final

from compressor.cli.output import PIPE_CLOSED, complain, say
from compressor.errors import CompressorError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERRUPTED: Final = 130
BUG: Final = 70
EXIT_CODES: Final[Mapping[int, str]] = {
    0: "Done; all limits are met.",
    1: "Done, but a limit is missed, an export is refused, or a file disagrees or is not fully supported.",
    2: "Invalid usage, recipe, task or input. The message says what is wrong, where, and what to do.",
    BUG: "A bug in compressor; please report the traceback.",
    INTERRUPTED: "Interrupted (Ctrl-C).",
    PIPE_CLOSED: "The program that reads the output has ended.",
}
"""What each exit code of the command line means."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with one of `EXIT_CODES`."""
    try:
        code = execute(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while modules are loaded; later ones are the application's
        code = _interrupted()
    sys.exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; an error of the user's is printed, not raised."""
    _never_fail_on_an_encoding()
    from typer import Abort, BadParameter

    from compressor.cli.app import app
    from compressor.cli.bench_phone import with_serial
    from compressor.cli.moved import refuse_moved

    # the base of every usage error of click, which typer does not export under a name of its own
    usage_problem: type[Exception] = next(base for base in BadParameter.__mro__ if base.__name__ == "UsageError")
    try:
        refuse_moved(arguments)
        code = app(with_serial(arguments), prog_name="compressor", standalone_mode=False) or 0
    except CompressorError as error:
        complain(error)
        return 2
    except Abort:
        code = INTERRUPTED
    except usage_problem as problem:
        complain(_usage_error(problem))
        return 2
    except Exception:
        traceback.print_exc()
        say("\nThis is a bug in compressor, not in your input; please report it with the text above.")
        return BUG
    return _interrupted() if code == INTERRUPTED else int(code)


def _interrupted() -> int:
    say("interrupted")
    return INTERRUPTED


def _usage_error(problem: Exception) -> UsageError:
    message = problem.format_message() if hasattr(problem, "format_message") else str(problem)
    message = message.replace("Value error, ", "")  # pydantic's word for an error of the type's own
    context = getattr(problem, "ctx", None)
    command = context.command_path if context is not None else "compressor"
    return UsageError(message[:1].lower() + message[1:], hint=f"`{command} --help` shows how it is used")


def _never_fail_on_an_encoding() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
