"""A run and a search, as something that is started, watched and compared."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.files.staged import COMMIT_FILE, LOG_FILE, REPORT_FILE, UNFINISHED
from compressor.pipeline.comparing import TIMED, facts_that_differ, files_that_differ
from compressor.studies.search.folder import BEST, FRONTIER
from compressor.studies.search.place import STUDY_FILE

if TYPE_CHECKING:
    from pathlib import Path

_PROGRESS = re.compile(r": \d+/\d+ \(")
_ANY_TIME = TIMED | {"layers_ms"}


@dataclass(frozen=True)
class Subject(ABC):
    """A command that can be killed and goes on when it is given again."""

    task: str
    more: tuple[str, ...] = ()
    """Further options."""

    @abstractmethod
    def command(self, out: Path) -> list[str]:
        """As from a shell."""

    @abstractmethod
    def happened(self, out: Path, process: int) -> list[str]:
        """What a process has done so far, in order, or found done: each is a part in which it may be killed."""

    @abstractmethod
    def differences(self, first: Path, second: Path) -> list[str]:
        """What differs between two finished folders, times left out."""


@dataclass(frozen=True)
class Run(Subject):
    """`compressor run`."""

    recipe: str = "quickstart"

    def command(self, out: Path) -> list[str]:
        """As from a shell."""
        own = ["run", self.recipe, "--task", self.task, "--out", str(out), "--device", "cpu"]
        return [sys.executable, "-m", "compressor.cli", *own, "--no-cache", *self.more]

    def happened(self, out: Path, process: int) -> list[str]:
        """The lines of its log, then the views of its report, its commit and its files in their places."""
        lines = _log(out, process)
        if not lines:
            return []
        staged = out / UNFINISHED
        ends = {
            "writing the views of the report": (staged / "report.md").exists(),
            "the commit is written": (staged / COMMIT_FILE).exists(),
        }
        return [*lines, *(name for name, is_there in ends.items() if is_there)]

    def differences(self, first: Path, second: Path) -> list[str]:
        """Bytes of files, facts of the report."""
        reports = [json.loads((out / REPORT_FILE).read_text()) for out in (first, second)]
        return [*files_that_differ(first, second, reports[0]["files"]), *facts_that_differ(*reports)]


@dataclass(frozen=True)
class Search(Subject):
    """`compressor search` with one worker, its study in a file."""

    def command(self, out: Path) -> list[str]:
        """As from a shell."""
        own = ["search", "--task", self.task, "--out", str(out), "--device", "cpu", *self.more]
        return [sys.executable, "-m", "compressor.cli", *own]

    def happened(self, out: Path, process: int) -> list[str]:
        """Its folder, its study, each trial begun and done, the lines of the run in `best/`, its report."""
        found = ["its folder is made"] if (out / "goals.json").exists() else []
        found += ["its study is begun"] if (out / STUDY_FILE).exists() else []
        for number, state in _trials(out / STUDY_FILE):
            found.append(f"trial {number} is begun")
            found += [f"trial {number} is done"] if state != "RUNNING" else []
        found += [f"best: {line}" for line in _log(out / BEST, None)]
        return found + [f"{name} is written" for name in ("report.md", "report.json") if (out / name).exists()]

    def differences(self, first: Path, second: Path) -> list[str]:
        """The studies' trials, the run in `best/`, the frontier's recipes, the report."""
        told = _differing("study", *(_study(out / STUDY_FILE) for out in (first, second)))
        names = sorted(path.name for path in (first / FRONTIER).iterdir())
        told += _differing("names in frontier/", names, sorted(path.name for path in (second / FRONTIER).iterdir()))
        told += files_that_differ(first / FRONTIER, second / FRONTIER, names)
        if (first / BEST / REPORT_FILE).exists():
            told += Run(self.task).differences(first / BEST, second / BEST)
        return told + facts_that_differ(*(json.loads((out / REPORT_FILE).read_text()) for out in (first, second)))


def _log(out: Path, process: int | None) -> list[str]:
    """The lines that a process wrote into the log of a run, progress left out; of any process if it is None."""
    for path in (out / UNFINISHED / LOG_FILE, out / LOG_FILE):
        try:
            lines = [line.partition("  ")[2] for line in path.read_text().splitlines()]
        except OSError:
            continue
        begins = [place for place, line in enumerate(lines) if line.endswith(f"process {process}")]
        if process is not None and not begins:
            continue
        own = lines[begins[-1] + 1 :] if begins else [line for line in lines if ", process " not in line]
        kept = [line for line in own if not _PROGRESS.search(line) and not line.startswith("going on with")]
        return ["it begins", *dict.fromkeys(kept)]
    return []


def _trials(path: Path) -> list[tuple[int, str]]:
    return _asked(path, "select number, state from trials order by number")


def _asked(path: Path, question: str) -> list[Any]:
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)) as database:
            return database.execute(question).fetchall()
    except sqlite3.Error:  # its tables are being made, or it is locked for a moment
        return []


def _study(path: Path) -> list[Any]:
    """Number, state, values of the knobs, and outcome without times of every trial."""
    knobs: dict[int, dict[str, float]] = {}
    values: dict[int, dict[str, Any]] = {}
    for trial, name, value in _asked(path, "select trial_id, param_name, param_value from trial_params"):
        knobs.setdefault(trial, {})[name] = value
    for trial, key, text in _asked(path, "select trial_id, key, value_json from trial_user_attributes"):
        values.setdefault(trial, {})[key] = _without_times(json.loads(text))
    trials = _asked(path, "select trial_id, number, state from trials order by number")
    return [[number, state, knobs.get(trial), values.get(trial)] for trial, number, state in trials]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if key not in _ANY_TIME}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def _differing(what: str, first: list[Any], second: list[Any]) -> list[str]:
    pairs = zip(first, second, strict=False)
    told = [f"{what}: {str(one)[:300]} and {str(other)[:300]}" for one, other in pairs if one != other]
    return told if len(first) == len(second) else [*told, f"{what}: {len(first)} and {len(second)}"]
