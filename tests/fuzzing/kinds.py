"""The kinds of input, and the random input of each number."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.fuzzing import checkpoints, journals, onnx_files, options, recipes, run_folders, searches
from tests.fuzzing.tasks.faults import FAULTS
from tests.fuzzing.tasks.verdict import case as task_case
from tests.fuzzing.tasks.verdict import judge as judge_task
from tests.fuzzing.verdict import Case, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Callable


class Tried(NamedTuple):
    """One input that was tried."""

    kind: str
    what: str
    refused: bool
    wrong: str
    """Empty if the outcome is what it should be."""


def _task(draw: random.Random, folder: Path) -> Case:
    """A task; what is said of it is held against its own cause."""
    tried = task_case(draw.randrange(10**6), draw.randrange(10**3))
    refused = tried.fault in FAULTS and FAULTS[tried.fault].words is not None

    def run() -> Outcome:
        return Outcome(refused, "error: as expected", judge_task(tried))

    return Case(tried.fault, "refused" if refused else "accepted", run)


KINDS: dict[str, Callable[[random.Random, Path], Case]] = {
    "recipes": recipes.case,
    "tasks": _task,
    "checkpoints": checkpoints.case,
    "onnx": onnx_files.case,
    "folders": run_folders.case,
    "options": options.case,
    "searches": searches.case,
    "journals": journals.case,
}
_TURN = (
    *("recipes", "options", "checkpoints", "folders", "onnx", "searches", "journals") * 3,
    *("tasks", "recipes", "checkpoints"),
)
"""How often each kind comes up; a task takes as long as ten recipes."""


def kind_of(number: int) -> str:
    """The kind of the input of this number."""
    return _TURN[number % len(_TURN)]


def attempt(seed: int, number: int, kind: str | None = None) -> Tried:
    """Try the input of this number in a folder of its own."""
    kind = kind or kind_of(number)
    draw = random.Random(f"{seed} {kind} {number}")
    with tempfile.TemporaryDirectory() as folder:
        case = KINDS[kind](draw, Path(folder))
        wrong, refused = judge(case)
    return Tried(kind, case.what, refused, wrong)
