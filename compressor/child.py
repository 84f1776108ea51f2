"""Programs in a process of their own: converters and loaders that may crash, hang or talk too much."""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING

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


class Service:
    """A program that answers one request after the other, and is started anew after one at which it crashed or hung.

    It reads requests from its standard input, one a line, and writes one line in answer to each. It ends by itself when
    its input does, and so with the process that started it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """For `command`, which is started at the first request."""
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._owner = 0

    def ask(self, request: str, *, seconds: float, what: str, hint: str = "") -> str:
        """The answer to `request`, neither of which holds a line break.

        Args:
            request: The line.
            seconds: Time limit, > 0.
            what: What is asked for, as the subject of an error: "loading model.onnx".
            hint: The remedy that an error names; by default, that the last lines tell.

        Raises:
            ExportError: The program cannot be started, ends without an answer (a signal is named) or takes too long.
                The message holds the last lines that it wrote to its standard error.
        """
        with self._lock:
            try:
                process = self._running()
            except OSError as error:
                raise ExportError(f"{what} cannot be started: {error}", hint=hint or None) from error
            assert process.stdin is not None
            assert process.stdout is not None
            assert self._complaints is not None
            self._complaints.seek(0)
            self._complaints.truncate()
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(request.encode() + b"\n")
                    process.stdin.flush()
                answer = _line(process.stdout, seconds)
            except BaseException:
                self.close()
                raise
            if answer.endswith(b"\n"):
                return answer.decode(errors="replace").rstrip("\n")
            hung = process.poll() is None and not _ended(process)
            end(process)
            self._complaints.seek(0)
            lines = _last_lines("", self._complaints.read().decode(errors="replace"))
            manner = (
                f"took longer than {seconds:g} s and was ended" if hung else f"failed ({_manner(process.returncode)})"
            )
            self.close()
            raise ExportError(f"{what} {manner}{lines}", hint=hint or None)

    def close(self) -> None:
        """End the program; the next request starts it anew."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            end(process)
            for stream in (process.stdin, process.stdout, self._complaints):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid():  # a forked process has to have one of its own
            return self._process
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the program
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                bufsize=0,
                start_new_session=True,
            )
        except OSError:
            complaints.close()
            raise
        self._complaints = complaints
        self._owner = os.getpid()
        atexit.register(self.close)
        return self._process


def _line(stream: IO[bytes], seconds: float) -> bytes:
    """What `stream` gives up to a line break, its end, or the end of the time."""
    found, limit = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not found.endswith(b"\n") and selector.select(max(0.0, limit - time.monotonic())):
            piece = os.read(stream.fileno(), 65536)
            if not piece:
                break
            found += piece
    return found


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process that has closed its output ends within a moment."""
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return False
    return True
