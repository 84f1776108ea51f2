"""Carries a study out, and continues one that was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from compressor.errors import OutputError
from compressor.files import write_whole, writing
from compressor.progress import Silent
from compressor.studies.graphs.facts import Results
from compressor.studies.graphs.training import draw, reinitialise
from compressor.studies.graphs.workers import rows, rows_on_ray
from compressor.task.loading import load

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from compressor.progress import Progress
    from compressor.studies.graphs.facts import Row, Study


def study(
    options: Study, path: Path, *, jobs: int = 1, ray: str | None = None, progress: Progress | None = None
) -> Results:
    """Train the networks that are missing in the file at `path`, which is written again after each of them.

    Args:
        options: What is studied.
        path: The results file; created if there is none.
        jobs: Number of processes, each with one thread of PyTorch. The rows do not depend on it.
        ray: Address of a Ray cluster that trains instead: `HOST:PORT`, `auto` for the one of this machine, or `local`
            for one that is started here with `jobs` processors. Every machine of it needs this package and the task's
            file and data at the same paths.
        progress: Where progress is told.

    Raises:
        OutputError: The file has results of other options, cannot be read or cannot be written.
        UsageError: Ray is not installed, or there is no cluster at the address.
        CompressorError: What the task or `random_graph` raise.
    """
    task = load(options.task)
    results = read(path, options)
    if results is None:
        _refuse_unfit(options, task.model())
        results = Results(study=options, metric=task.metric, higher_is_better=task.higher_is_better)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    done = {(row.kind, row.index) for row in results.rows}
    missing = [(kind, i) for i in range(options.count) for kind in options.kinds if (kind, i) not in done]
    with (progress or Silent()).bar("training on graphs", options.count * len(options.kinds)) as bar:
        bar.advance(len(done))
        for row in rows(options, missing, jobs) if ray is None else rows_on_ray(options, missing, jobs, ray):
            results = _with_row(results, row)
            write_whole(path, (results.model_dump_json(indent=2) + "\n").encode())
            bar.advance(1, f"{row.kind} {row.index}: {'failed' if row.metric is None else f'{row.metric:.4g}'}")
    return results


def read(path: Path, options: Study) -> Results | None:
    """The results so far; None if there is no file.

    Raises:
        OutputError: It is not a results file, or one of other options.
    """
    if not path.exists():
        return None
    try:
        results = Results.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise OutputError(
            f"{path} is there and is not a results file of this version", hint="choose another --out, or move it away"
        ) from error
    before, now = results.study.model_dump(), options.model_dump()
    other = [f"{name} {before[name]}, here {now[name]}" for name in now if before[name] != now[name]]
    if other:
        raise OutputError(
            f"{path} has results of other arguments: {'; '.join(other)}",
            hint="repeat its arguments to go on with it, or choose another --out",
        )
    return results


def _refuse_unfit(options: Study, model: nn.Module) -> None:
    """Raise before any work if the model has not the one layer, or cannot start from random weights."""
    draw(options, options.kinds[0], 0).check(model)
    reinitialise(model, options.seed)


def _with_row(results: Results, row: Row) -> Results:
    kinds = results.study.kinds
    ordered = sorted((*results.rows, row), key=lambda row: (kinds.index(row.kind), row.index))
    return results.model_copy(update={"rows": tuple(ordered)})
