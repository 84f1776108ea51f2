"""Try faults: each in a process of its own, forked from one in which the tests are collected already."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.mutation.swap import put_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.mutation.operators import Fault
    from benchmarks.mutation.reach import Candidate

KILLED, SURVIVED, TIMEOUT, UNREACHED, INVALID = "killed", "survived", "timeout", "unreached", "invalid"
UNNOTICED = (SURVIVED, UNREACHED)
_PASSED, _FAILED, _CANNOT = 0, 1, 3


@dataclass(frozen=True)
class Outcome:
    """What became of a fault."""

    fault: Fault
    verdict: str
    test: str = ""
    """The test that noticed it."""
    tried: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """A fault, and the tests that may notice it."""

    fault: Fault
    tests: Sequence[Candidate]


class Trials:
    """A pytest plugin that runs trials instead of the tests."""

    def __init__(self, trials: Sequence[Trial], told: Callable[[Outcome], None]) -> None:
        """Trials, and what to do with each outcome."""
        self._trials, self._told = trials, told
        self._items: dict[str, pytest.Item] = {}
        self._sound: dict[str, bool] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all trials."""
        self._items = {item.nodeid: item for item in session.items}
        for trial in self._trials:
            self._told(self._outcome(trial))
        return True

    def _outcome(self, trial: Trial) -> Outcome:
        tests = [test for test in trial.tests if test.name in self._items and self._sound.get(test.name, True)]
        if not tests:
            return Outcome(trial.fault, UNREACHED)
        started = time.monotonic()
        verdict, noticed = self._forked(tests, trial.fault)
        if verdict == KILLED and not self._passes_alone(noticed, tests):
            return self._outcome(trial)
        return Outcome(trial.fault, verdict, noticed, len(tests), round(time.monotonic() - started, 1))

    def _passes_alone(self, name: str, tests: Sequence[Candidate]) -> bool:
        """Whether a test that noticed a fault passes without one: asked once for each test."""
        for test in tests:
            if test.name == name and name not in self._sound:
                self._sound[name] = self._forked([test], None)[0] == SURVIVED
        return self._sound.get(name, True)

    def _forked(self, tests: Sequence[Candidate], fault: Fault | None) -> tuple[str, str]:
        seconds = int(3 * sum(test.seconds for test in tests)) + 20
        reading, writing = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.close(reading)
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            os._exit(_in_child([self._items[test.name] for test in tests], fault, writing))
        os.close(writing)
        status = _waited(child, seconds * 10)
        with os.fdopen(reading, encoding="utf-8") as pipe:
            current = pipe.read().strip().rpartition("\n")[2]
        if os.WIFSIGNALED(status):
            late = os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL}
            return (TIMEOUT, "") if late else (KILLED, current)
        code = os.WEXITSTATUS(status)
        return {_PASSED: (SURVIVED, ""), _CANNOT: (INVALID, "")}.get(code, (KILLED, current))


def _waited(child: int, seconds: float) -> int:
    """Status of a child at its end, which it finds after so many seconds at the latest."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)


def _in_child(items: Sequence[pytest.Item], fault: Fault | None, writing: int) -> int:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        if fault is not None:
            put_in(fault)
    except (ValueError, SyntaxError):
        return _CANNOT
    except Exception as error:  # a constant that cannot even be computed is noticed on import
        os.write(writing, f"put in: {type(error).__name__}: {error}\n".encode())
        return _FAILED
    watch = _Watch()
    items[0].config.pluginmanager.register(watch)
    for item, following in zip(items, [*items[1:], None], strict=True):
        os.write(writing, f"{item.nodeid}\n".encode())
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if watch.failed:
            return _FAILED
    return _PASSED


class _Watch:
    def __init__(self) -> None:
        self.failed = False

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed


def collected(trials: Sequence[Trial], told: Callable[[Outcome], None]) -> int:
    """Collect the tests of all trials, and run these."""
    files = sorted({test.name.partition("::")[0] for trial in trials for test in trial.tests})
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*options, *(str(Path(file)) for file in files)], plugins=[Trials(trials, told)]))
