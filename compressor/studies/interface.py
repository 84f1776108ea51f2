"""The commands as Python functions, for scripts and notebooks: `compressor.run`, `.search` and `.inspect`.

They take what the commands take, give what the reports hold, and raise `CompressorError` where a command ends with 2.
"""

from __future__ import annotations

import inspect as sources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from compressor import recipe as recipes
from compressor.errors import TaskError, UsageError
from compressor.pipeline.run import run as carry_out
from compressor.progress import Lines
from compressor.recipe.model import Recipe
from compressor.render import trackers
from compressor.studies import inspection
from compressor.studies.search import goals as search_goals
from compressor.studies.search.place import Place
from compressor.studies.search.search import search as find
from compressor.task import loading
from compressor.task.guard import GuardedTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.progress import Progress
    from compressor.render.trackers import Tracker
    from compressor.report import Report, SearchReport
    from compressor.task.contract import Task

_LINES: Final = Lines()


def run(
    recipe: str | Path | Recipe,
    task: str | Path | Task | type[Task],
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    threads: int = 1,
    quick: bool = False,
    force: bool = False,
    restart: bool = False,
    probes: bool = True,
    log: Tracker | None = None,
    progress: Progress = _LINES,
) -> Report:
    """Compress a task's model by a recipe, export it, and report, as `compressor run` does.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, or a `Recipe`.
        task: `FILE.py` or `FILE.py:NAME`, or a task whose class is in a file.
        out: The run's folder; made if it is missing.
        overrides: `KEY=VALUE` texts such as `steps.0.ratio=0.7`, of a recipe by name or path.
        device: `auto`, `cpu` or an accelerator that PyTorch has.
        threads: Threads of ONNX Runtime while latency is measured.
        quick: A rehearsal on a handful of batches.
        force: Replace another recipe's run in `out`.
        restart: Begin anew if there is an unfinished run in `out`.
        probes: Probe an architecture that replaces another one.
        log: `tensorboard`, `mlflow` or `wandb`: where curves and results go too.
        progress: Told what goes on; prints lines by default, which a notebook shows too.

    Returns:
        The report, which a notebook shows as the page `report.html`. A missed limit is no error: see `limits_met`.

    Raises:
        CompressorError: Invalid input; the message names the place and the remedy.
    """
    if log is not None:
        trackers.need(log)
    if isinstance(recipe, Recipe):
        if overrides:
            raise UsageError("`overrides` are for a recipe by name or path", hint="use `recipe.model_copy(update=...)`")
        chosen = recipe
    else:
        chosen = recipes.load(str(recipe), overrides)
    report = carry_out(
        chosen,
        _task(task),
        out,
        device=device,
        threads=threads,
        quick=quick,
        force=force,
        restart=restart,
        probes=probes,
        progress=progress,
    )
    if log is not None:
        progress.say(f"log: {trackers.send(log, report, Path(out))}")
    return report


def search(
    goals: str | Path | Mapping[str, Any],
    task: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    threads: int = 1,
    jobs: int = 1,
    progress: Progress = _LINES,
) -> SearchReport:
    """Search for the recipe whose file meets goals, and run it, as `compressor search` does.

    Args:
        goals: Path of a YAML file, or a mapping such as `{"max_drop": 0.01, "max_bytes": "600KB", "time": "10m"}`.
        task: `FILE.py` or `FILE.py:NAME`: workers load it themselves.
        out: The search's folder.
        device: As of `run`.
        threads: As of `run`.
        jobs: Workers; more than one needs a program whose main module can be imported.
        progress: As of `run`.

    Raises:
        CompressorError: Invalid input.
    """
    options = [(key, key, value) for key, value in goals.items()] if not isinstance(goals, (str, Path)) else []
    path = str(goals) if isinstance(goals, (str, Path)) else None
    place = Place(str(task), Path(out), None, device, threads, jobs)
    return find(search_goals.load(path, options), place, progress=progress)


def inspect(
    task: str | Path | Task | type[Task], *, evaluate: bool = False, progress: Progress = _LINES
) -> dict[str, Any]:
    """What a task's model is made of and what of it can be pruned: the facts of `compressor inspect --json`.

    Args:
        task: As of `run`.
        evaluate: Compute the task's metric on the model.
        progress: As of `run`.

    Raises:
        CompressorError: Invalid input.
    """
    return inspection.inspected(_task(task), evaluate=evaluate, progress=progress)


def _task(given: str | Path | Task | type[Task]) -> GuardedTask:
    if isinstance(given, (str, Path)):
        return loading.load(str(given))
    if isinstance(given, GuardedTask):
        return given
    kind = given if isinstance(given, type) else type(given)
    try:
        file = sources.getsourcefile(kind)
    except (TypeError, OSError):
        file = None
    if file is None or not Path(file).is_file():
        raise TaskError(
            f"the class `{kind.__name__}` is in no file, by which a run knows whether its code has changed",
            hint="write it into one, in a notebook by `%%writefile task.py` in its cell, and give `task.py`",
        )
    return GuardedTask(given() if isinstance(given, type) else given, file)
