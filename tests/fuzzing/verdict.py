"""One random input, and whether what the tool did with it is what should be."""

from __future__ import annotations

import os
import re
import signal
import time
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from compressor.errors import CompressorError
from compressor.render.text import printable
from tests.cli.conftest import call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 30
"""In which each input is answered."""
_PATIENCE = 3
_BUSY = 2.0 * (os.cpu_count() or 1)
"""Processes that want a processor."""
LONGEST_ERROR = 12_000
"""Characters of what is said of one input."""

Expected = Literal["accepted", "refused", "either"]


class Hung(BaseException):
    """The watchdog's."""


@dataclass(frozen=True)
class Outcome:
    """What the tool made of an input."""

    refused: bool
    said: str
    """All that it printed as an error."""
    crash: str = ""
    """What happened that never should: a bug of ours, by exit code or traceback."""


@dataclass(frozen=True)
class Case:
    """One input; `run` hands it to the tool."""

    what: str
    """How it was made, for the table and for the one who mends."""
    expected: Expected
    run: Callable[[], Outcome]


def of_command(*arguments: object) -> Outcome:
    """The outcome of a command line, run in this process."""
    result = call(*arguments)
    crash = "" if result.code in (0, 1, 2) else f"exit code {result.code}"
    if "Traceback (most recent" in result.err:
        crash = "a traceback"
    if printable(result.out) != result.out:
        crash = "control characters on standard output"
    refused = result.code == 2
    return Outcome(refused, result.err or f"error: as JSON\n{result.out}" if refused else result.err, crash)


def of_function(function: Callable[[], Any]) -> Outcome:
    """The outcome of a call of the library, whose errors are `CompressorError`s."""
    try:
        function()
    except CompressorError as error:
        return Outcome(True, printable(error.render()))
    return Outcome(False, "")


def judge(case: Case) -> tuple[str, bool]:
    """What is wrong with the outcome (empty: nothing), and whether the input was refused."""
    try:
        with watchdog(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = case.run()
    except Hung:
        return f"no answer in {SECONDS} s", False
    except BaseException as error:
        last = "".join(traceback.format_exception(error)[-3:])
        return f"traceback: {type(error).__name__}: {error}\n{last}", False
    return _wrong(case.expected, outcome), outcome.refused


def _wrong(expected: Expected, outcome: Outcome) -> str:
    said = outcome.said
    if outcome.crash:
        return f"{outcome.crash}: {said}"
    if printable(said) != said:
        return f"control characters reach the terminal: {said!r}"
    if len(said) > LONGEST_ERROR:
        return f"an error of {len(said)} characters"
    if outcome.refused and not re.search(r"^error: \S", said, re.MULTILINE):
        return f"refused without an error: {said}"
    if expected == "refused" and not outcome.refused:
        return f"accepted: {said}"
    return f"refused: {said}" if expected == "accepted" and outcome.refused else ""


@contextmanager
def watchdog(seconds: float = SECONDS) -> Iterator[None]:
    """Raise `Hung` in what takes longer.

    On a busy machine, where it got less than half of that from a processor, it is given the time again, up to
    `_PATIENCE` times.
    """
    started, barked = time.process_time(), 0

    def bark(number: int, frame: Any) -> None:
        nonlocal barked
        barked += 1
        if barked > _PATIENCE or time.process_time() - started > seconds / 2 or os.getloadavg()[0] < _BUSY:
            raise Hung
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
