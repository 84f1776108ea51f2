"""Programs in a process of their own: converters and loaders that may crash, hang or talk too much."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from compressor.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LAST_LINES = 8


def run(
    command: Sequence[str], *, seconds: float, what: str, environment: Mapping[str, str] | None = None, hint: str = ""
) -> str:
    """Run `command` to its end and give what it printed to its standard output.

    It gets no input, and is the head of a process group of its own: where the time is up, its children go with it.

    Args:
        command: Program and arguments; no shell reads them.
        seconds: Time limit, > 0.
        what: What the command does, as the subject of an error: "the conversion of model.onnx".
        environment: Variables added to those of this process.
        hint: The remedy that an error names; by default, that the last lines tell.

    Returns:
        The standard output; bytes that are no UTF-8 are replaced.

    Raises:
        ExportError: The program cannot be started, fails, is ended by a signal (which is named) or takes too long. The
            message holds the last lines that it wrote.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise ExportError(f"{what} cannot be started: {error}", hint=hint or None) from error
    try:
        output, complaints = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        end(process)
        output, complaints = process.communicate()
        raise ExportError(
            f"{what} took longer than {seconds:g} s and was ended{_last_lines(output, complaints)}",
            hint=hint or "a smaller model or a shorter length may be within the time",
        ) from error
    except BaseException:
        end(process)
        raise
    if process.returncode != 0:
        raise ExportError(
            f"{what} failed ({_manner(process.returncode)}){_last_lines(output, complaints)}", hint=hint or None
        )
    return output


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process that was started as the head of its own session, and all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _manner(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _last_lines(output: str, complaints: str) -> str:
    """The end of what was written, errors before ordinary output; empty where nothing was."""
    lines = [line.rstrip() for line in (complaints.strip() or output.strip()).splitlines() if line.strip()]
    return "; its last lines:\n" + "\n".join(f"  {line}" for line in lines[-_LAST_LINES:]) if lines else ""
