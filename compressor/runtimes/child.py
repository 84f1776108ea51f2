"""Programs in a process of their own: converters and loaders that may crash, hang or talk too much."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import struct
import subprocess
import tempfile
import time
import weakref
from typing import IO, TYPE_CHECKING

from compressor.errors import ExportError
from compressor.runtimes import resources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LAST_LINES = 8
_OF_MEMORY = re.compile("memory|alloc", re.IGNORECASE)
"""What allocators say in the last lines of a program."""


def run(
    command: Sequence[str],
    *,
    seconds: float,
    what: str,
    environment: Mapping[str, str] | None = None,
    hint: str = "",
    memory: int | None = None,
) -> str:
    """Run `command` to its end and give what it printed to its standard output.

    It gets no input, and is the head of a process group of its own: when the time is up, its children end with it.

    On Linux its memory is limited too, to what this machine has or `memory`; the error of one that is ended by a signal
    names the limit.

    Args:
        command: Program and arguments; no shell reads them.
        seconds: Time limit, > 0.
        what: What the command does, as the subject of an error: "the conversion of model.onnx".
        environment: Variables added to those of this process.
        hint: The remedy that an error names; by default, that the last lines tell.
        memory: Bytes that it may take, > 0.

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
    given = resources.limit(process.pid, memory)
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
            f"{what} failed ({_manner(process.returncode, complaints, given)}){_last_lines(output, complaints)}",
            hint=hint or None,
        )
    return output


class Server:
    """A program that answers requests over its pipes until it is closed; a request that kills or hangs it is an error.

    A request is written to its standard input and an answer read from its standard output, each as eight bytes that
    hold its length (little-endian) and as many bytes. What it writes to its standard error shows up in errors.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        what: str,
        environment: Mapping[str, str] | None = None,
        memory: int | None = None,
    ) -> None:
        """Start it, as the head of a process group of its own, its memory limited as by `run`.

        Args:
            command: Program and arguments; no shell reads them.
            what: What it does, as the subject of an error.
            environment: Variables added to those of this process.
            memory: Bytes that it may take, > 0.

        Raises:
            ExportError: It cannot be started.
        """
        self.what = what
        self._owner = os.getpid()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._complaints.close()
            raise ExportError(f"{what} cannot be started: {error}") from error
        self._memory = resources.limit(self._process.pid, memory)
        os.set_blocking(_pipe(self._process.stdin), False)
        self.close = weakref.finalize(self, _close, self._process, self._complaints, self._owner)

    @property
    def alive(self) -> bool:
        """Whether it was not closed, here or because of a request at which it failed."""
        return self.close.alive and os.getpid() == self._owner

    def ask(self, request: bytes, *, seconds: float, hint: str = "") -> bytes:
        """The answer to a request.

        Args:
            request: What is asked.
            seconds: Time limit, > 0; a program that misses it is ended.
            hint: The remedy that an error names.

        Raises:
            ExportError: It died, which names the signal, or took too long; the message holds its last lines.
        """
        if not self.alive:
            raise ExportError(f"{self.what} was ended before", hint=hint or None)
        deadline = time.monotonic() + seconds
        try:
            self._write(struct.pack("<Q", len(request)) + request, deadline)
            (length,) = struct.unpack("<Q", self._read(8, deadline))
            return self._read(length, deadline)
        except TimeoutError as error:
            end(self._process)
            last = self.last_lines()
            self.close()
            raise ExportError(
                f"{self.what} took longer than {seconds:g} s and was ended{last}", hint=hint or None
            ) from error
        except (EOFError, BrokenPipeError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            end(self._process)
            last = self.last_lines()
            self.close()
            manner = _manner(self._process.returncode, last, self._memory)
            raise ExportError(f"{self.what} failed ({manner}){last}", hint=hint or None) from error

    def _write(self, content: bytes, deadline: float) -> None:
        pipe, rest = _pipe(self._process.stdin), memoryview(content)
        while rest:
            _, ready, _ = select.select([], [pipe], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            rest = rest[os.write(pipe, rest) :]

    def _read(self, length: int, deadline: float) -> bytes:
        pipe, found = _pipe(self._process.stdout), bytearray()
        while len(found) < length:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(pipe, min(1 << 20, length - len(found)))
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    def last_lines(self) -> str:
        """The end of what it wrote to its standard error, for an error of its asker; empty if nothing."""
        self._complaints.seek(0)
        return _last_lines("", self._complaints.read().decode(errors="replace"))


def _pipe(stream: IO[bytes] | None) -> int:
    assert stream is not None
    return stream.fileno()


def _close(process: subprocess.Popen[bytes], complaints: IO[bytes], owner: int) -> None:
    """End a server and free what it held; a fork of its owner leaves it running."""
    if os.getpid() == owner:
        end(process)
    for stream in (process.stdin, process.stdout, complaints):
        if stream is not None:
            stream.close()


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process that was started as the head of its own session, and all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _manner(code: int, said: str, memory: int | None) -> str:
    """How a process ended; if that may be for its memory, with the limit."""
    manner = f"exit status {code}"
    if code < 0:
        known = -code in set(signal.Signals)
        manner = f"ended by {signal.Signals(-code).name}" if known else f"ended by signal {-code}"
    about_memory = -code in (signal.SIGKILL, signal.SIGABRT) or _OF_MEMORY.search(said) is not None
    return f"{manner}; it may take {resources.gib(memory)} of memory" if memory and about_memory else manner


def _last_lines(output: str, complaints: str) -> str:
    """The end of what was written, errors before ordinary output; empty if nothing was."""
    lines = [line.rstrip() for line in (complaints.strip() or output.strip()).splitlines() if line.strip()]
    return "; its last lines:\n" + "\n".join(f"  {line}" for line in lines[-_LAST_LINES:]) if lines else ""
