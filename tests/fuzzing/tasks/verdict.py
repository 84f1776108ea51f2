"""Tries one random task and says whether what happened is what should."""

from __future__ import annotations

import random
import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from compressor.errors import CompressorError
from compressor.pipeline.dry_run import try_out
from compressor.task.guard import GuardedTask
from tests.fuzzing.tasks.bases import Fuzzed, choose
from tests.fuzzing.tasks.faults import FAULTS
from tests.fuzzing.verdict import SECONDS, Hung, watchdog

GOOD = "nothing wrong"


@dataclass(frozen=True)
class Case:
    """A random task."""

    fault: str
    choice: dict[str, Any]

    def task(self) -> type[Fuzzed]:
        """The class of the task."""
        changes = dict(FAULTS[self.fault].changes) if self.fault in FAULTS else {}
        needs = changes.pop("needs", {})
        return type("Task" + "x" * 296, (Fuzzed,), {**changes, "choice": {**self.choice, **needs}})


def case(seed: int, index: int) -> Case:
    """The task of this number; each round goes through all faults, in another order and on other good tasks."""
    kinds = [*FAULTS, *[GOOD] * (len(FAULTS) // 4)]
    turn, place = divmod(index, len(kinds))
    random.Random(f"{seed} {turn}").shuffle(kinds)
    return Case(kinds[place], choose(random.Random(f"{seed} {index}")))


def judge(case: Case) -> str:
    """Empty if the verdict is right; else what happened instead."""
    expected = FAULTS[case.fault].words if case.fault in FAULTS else None
    try:
        with watchdog(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task = GuardedTask(case.task()(), __file__)
            try_out(task, task.model(), torch.device("cpu"))
    except CompressorError as error:
        return _of_error(error, expected)
    except Hung:
        return f"took more than {SECONDS:g} s"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"
    return "accepted" if expected is not None else ""


def _of_error(error: CompressorError, expected: str | None) -> str:
    if expected is None:
        return f"refused: {error.render()}"
    if not re.search(expected, error.message, re.DOTALL):
        return f"another cause: {error.render()}"
    return "" if error.place is not None else f"no place: {error.render()}"
