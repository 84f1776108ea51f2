"""Which tests run which line: recorded once, test file by test file, and kept in `.mutation/reach/`."""

from __future__ import annotations

import gzip
import json
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
STORE = ROOT / ".mutation" / "reach"
SOURCES = ("compressor/nn", "compressor/surgery", "compressor/measure", "exporters")

Lines = dict[str, set[int]]
"""Source file -> lines of it that ran."""
_FIXTURE = "\0"
"""Between the parts of a fixture's context: no name of a test holds it."""


class Recorder:
    """A pytest plugin that records which lines each test runs.

    What a fixture of a wider scope runs is credited to every test that asks for it, not only to the first.
    """

    def __init__(self, most: int | None = None) -> None:
        """Nothing is recorded yet; `most` parametrizations of a test function are run, all of them if it is None."""
        self._most = most
        self._coverage = coverage.Coverage(data_file=None, source=[str(ROOT / room) for room in SOURCES])
        self._coverage.set_option("run:disable_warnings", ["no-data-collected", "module-not-imported"])
        self._shared: dict[str, Lines] = defaultdict(lambda: defaultdict(set))
        """By the context of a fixture of a wider scope."""
        self._contexts: list[str] = []
        self._file = ""
        self._tests: dict[str, dict[str, Any]] = {}
        self._fixtures: dict[str, tuple[str, ...]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out parametrizations above the most, evenly over all of them."""
        if self._most is not None:
            functions: dict[str, list[pytest.Item]] = defaultdict(list)
            for item in items:
                functions[item.nodeid.partition("[")[0]].append(item)
            items[:] = [item for group in functions.values() for item in thinned(group, self._most)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Measure one test."""
        file = item.nodeid.partition("::")[0]
        if file != self._file:
            self._write()
            self._file, self._tests, self._fixtures = file, {}, {}
        self._tests[item.nodeid] = {"seconds": 0.0, "passed": False, "lines": defaultdict(set)}
        self._fixtures[item.nodeid] = tuple(getattr(item, "fixturenames", ()))
        started = time.process_time()
        with self._into(item.nodeid):
            result = yield
        self._tests[item.nodeid]["seconds"] = round(time.process_time() - started, 3)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Any:
        """Keep apart what a fixture of a wider scope runs."""
        if fixturedef.scope == "function":
            return (yield)
        with self._into(_FIXTURE.join(("", fixturedef.baseid, fixturedef.argname))):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that does not pass by itself can notice nothing."""
        if report.when == "call":
            self._tests[report.nodeid]["passed"] = report.passed

    def pytest_sessionfinish(self) -> None:
        """Write the last file."""
        self._write()

    @contextmanager
    def _into(self, context: str) -> Iterator[None]:
        """Credit what runs to a context: to start coverage anew for each test would cost ten times as much."""
        if not self._contexts:
            self._coverage.start()
        self._contexts.append(context)
        self._coverage.switch_context(context)
        try:
            yield
        finally:
            self._contexts.pop()
            if self._contexts:
                self._coverage.switch_context(self._contexts[-1])
            else:
                self._coverage.stop()

    def _credit(self) -> None:
        """Give the lines that ran to the tests of this file and to fixtures, and those of fixtures to their tests."""
        data = self._coverage.get_data()
        for file in data.measured_files():
            source = str(Path(file).relative_to(ROOT))
            for number, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    lines = self._tests[context]["lines"] if context in self._tests else self._shared[context]
                    lines[source].add(number)
        self._coverage.erase()
        for context, shared in self._shared.items():
            _, base, name = context.split(_FIXTURE)
            for test, fixtures in self._fixtures.items():
                if name in fixtures and test.startswith(base):
                    for source, numbers in shared.items():
                        self._tests[test]["lines"][source] |= numbers

    def _write(self) -> None:
        if not self._tests:
            return
        self._credit()
        sources = sorted({source for test in self._tests.values() for source in test["lines"]})
        texts = {source: (ROOT / source).read_text(encoding="utf-8") for source in sources}
        tests = {
            name: {**test, "lines": {source: _ranges(numbers) for source, numbers in test["lines"].items() if numbers}}
            for name, test in self._tests.items()
            if test["passed"]
        }
        target = STORE / f"{self._file}.json.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(json.dumps({"sources": texts, "tests": tests}).encode(), compresslevel=4))


def thinned(group: Sequence[pytest.Item], most: int) -> Sequence[pytest.Item]:
    """At most so many of a group, evenly spaced, the first and the last among them."""
    if len(group) <= most:
        return group
    return [group[round(place * (len(group) - 1) / max(1, most - 1))] for place in range(most)]


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


@dataclass(frozen=True)
class Candidate:
    """A test, and the seconds of processor time that it takes."""

    name: str
    seconds: float


def reaching(source: str, first: int, last: int) -> list[Candidate]:
    """The tests that run one of the lines of a source file, the quickest first."""
    reached = _reach(source)
    found = {test for number, tests in reached.items() if first <= number <= last for test in tests}
    return sorted(found, key=lambda test: (test.seconds, test.name))


@cache
def _reach(source: str) -> dict[int, set[Candidate]]:
    """Line of a source file as it is now -> tests that ran it as it was when they were recorded."""
    now = (ROOT / source).read_text(encoding="utf-8").splitlines()
    reached: dict[int, set[Candidate]] = defaultdict(set)
    for record in _records():
        if source not in record["sources"]:
            continue
        moved = _moved(record["sources"][source], tuple(now))
        for name, test in record["tests"].items():
            for first, last in test["lines"].get(source, ()):
                for number in range(first, last + 1):
                    reached[moved[number]].add(Candidate(name, test["seconds"]))
    return reached


@cache
def _records() -> list[dict[str, Any]]:
    return [json.loads(gzip.decompress(path.read_bytes())) for path in sorted(STORE.rglob("*.json.gz"))]


@cache
def _moved(before: str, now: tuple[str, ...]) -> dict[int, int]:
    """Old number of a line -> its number now; lines that were changed stand where those before them stand."""
    old = before.splitlines()
    moved: dict[int, int] = {}
    for _, start, end, at, stop in SequenceMatcher(None, old, now, autojunk=False).get_opcodes():
        for offset in range(end - start):
            moved[start + offset + 1] = min(at + offset, max(stop - 1, at)) + 1
    return moved
