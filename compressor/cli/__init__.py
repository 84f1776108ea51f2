"""The command line; `main` is the entry point."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from compressor.cli.output import PIPE_CLOSED, complain, say
from compressor.errors import CompressorError, UsageError, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

INTERRUPTED: Final = 130
TERMINATED: Final = 143
BUG: Final = 70
EXIT_CODES: Final[Mapping[int, str]] = {
    0: "Done; all limits are met.",
    1: "Done, but a limit is missed, an export is refused, or a file disagrees or is not fully supported.",
    2: "Invalid usage, recipe, task or input, or too little memory. The message says what is wrong, where, and what "
    "to do.",
    BUG: "A bug in compressor. The message is a short report; the file that it names holds the full traceback.",
    INTERRUPTED: "Interrupted (Ctrl-C, SIGINT): what a run has finished is kept, and the same command goes on.",
    PIPE_CLOSED: "The program that reads the output has ended.",
    TERMINATED: "Terminated (SIGTERM): child processes are ended, and all else is as after Ctrl-C.",
}
"""What each exit code of the command line means."""
_OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000
"""New objects after which Python looks for cycles. PyTorch and its exporter make a million objects that stay; to look
through them every 700 takes a seventh of the processor time of an export (docs/results/speeds.md)."""

_OF_THE_SYSTEM: Final = frozenset(
    {
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO),
        *(errno.EMFILE, errno.ENFILE),
    }
)
"""Reasons of the operating system that no program could have known."""


class _Terminated(BaseException):
    """Raised by SIGTERM; as with Ctrl-C, no `except Exception` holds it up, and what was begun is cleaned up."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with one of `EXIT_CODES`."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)  # at its end Python looks through all objects for cycles: over a second, for nothing
    try:
        with _termination_raises():
            code = execute(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while modules are loaded; later ones are the application's
        code = _interrupted()
    except _Terminated:
        say("terminated")
        code = TERMINATED
    sys.exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; an error is printed, not raised."""
    _never_fail_on_an_encoding()
    from typer import Abort, BadParameter

    # the base of every usage error of click, which typer does not export under a name of its own
    usage_problem: type[Exception] = next(base for base in BadParameter.__mro__ if base.__name__ == "UsageError")
    try:
        _refuse_other_bytes(arguments)
        code = _run(arguments)
    except CompressorError as error:
        complain(error)
        return 2
    except Abort as abort:  # what typer makes of an EOFError, wherever that came from; Ctrl-C is an exit code
        return _fault(abort.__cause__ or abort, arguments)
    except usage_problem as problem:
        complain(_usage_error(problem))
        return 2
    except Exception as error:
        return _fault(error, arguments)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # standard error has no reader any more
            return PIPE_CLOSED
        raise
    return _interrupted() if code == INTERRUPTED else code


def _refuse_other_bytes(arguments: Sequence[str]) -> None:
    """Raise `UsageError` for an argument of bytes that are no text: no report could name such a file."""
    for number, argument in enumerate(arguments, start=1):
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in argument):
            raise UsageError(
                f"argument {number} is not UTF-8 text: `{argument}`",
                hint="rename the file or folder, and give its new name",
            )


def _run(arguments: Sequence[str]) -> int:
    from compressor.cli.app import command
    from compressor.cli.bench_phone import with_serial
    from compressor.cli.moved import refuse_moved

    refuse_moved(arguments)
    return int(command()(with_serial(arguments), prog_name="compressor", standalone_mode=False) or 0)


def _fault(error: BaseException, arguments: Sequence[str]) -> int:
    """Report what no command expected."""
    from compressor.cli import fault

    if fault.is_out_of_memory(error):
        complain(
            CompressorError(
                f"the memory of this machine is used up: {str(error).splitlines()[0] if str(error) else 'MemoryError'}",
                hint="use smaller batches, a shorter `max_length` or a smaller model, or a machine with more memory",
            )
        )
        return 2
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM and error.filename is not None:
        hint = "give another name, fix its permissions, or free some space"
        complain(CompressorError(f"cannot use `{error.filename}`: {error.strerror}", hint=hint))
        return 2
    say(shortened(fault.describe(error, arguments)))
    return BUG


def _interrupted() -> int:
    say("interrupted")
    return INTERRUPTED


@contextmanager
def _termination_raises() -> Iterator[None]:
    """SIGTERM raises an exception, so that processes and folders of the run are cleaned up."""

    def stop(number: int, frame: FrameType | None) -> None:
        if "multiprocessing" in sys.modules:  # pools wait for their workers, which need not finish what they do
            for worker in sys.modules["multiprocessing"].active_children():
                worker.terminate()
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
