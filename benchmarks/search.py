"""The frontier of a search against random search over the same space with the same budget, and against plain recipes.

    python benchmarks/search.py samples/japanese_vowels/task.py --max-drop 0.01 --minutes 3 --seeds 0,1,2 --out DIR

For each seed four ways get the same processor time (this process and what it starts; `--trials` gives the same number
of points instead), in which each makes its own sensitivity map:

- `guided`: as `compressor search` does it, without the run of the chosen recipe at the end.
- `halving`: points drawn at random, the rungs and all else as before: what the sampler alone is worth.
- `random`: points drawn at random, each in full.
- `uniform`: 0.25, 0.5 and 0.75 of the units (width, heads) of every layer alike in 8 bits, each in full; no limit.

The hypervolume is the area that the points in full dominate in the plane of (loss, log of bytes), up to five times the
allowed loss and the original's size, so that equal ratios of bytes count the same; the loss is that by `evaluate`,
which no way looks at if the task has `validate`. `best` is the smallest file that keeps the goal by both functions.
Everything is kept in DIR, and an interrupted benchmark goes on. `frontier.json` of a way is what `compressor frontiers
show` takes; those of `guided` are the library in `compressor/studies/search/frontiers/`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compressor.cli.progress import Terminal
from compressor.files import write_whole
from compressor.plain_yaml import dump
from compressor.studies.search.choosing import candidates, in_full
from compressor.studies.search.clock import Clock
from compressor.studies.search.goals import Goals, load
from compressor.studies.search.hypervolume import LOSSES, hypervolume
from compressor.studies.search.known import FILE
from compressor.studies.search.outcome_report import frontier_of
from compressor.studies.search.place import Place
from compressor.studies.search.preparing import prepare
from compressor.studies.search.sampling import draw
from compressor.studies.search.storage import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.progress import Progress
    from compressor.studies.search.records import Record
    from compressor.studies.search.space import Rung
    from compressor.studies.search.worker import View, Worker

_WAYS = "guided,halving,random,uniform"
_LEVELS = (0.25, 0.5, 0.75)


class _Budget(Clock):
    """All of the time is for trials: nothing is run or written at the end."""

    def has_time_for(self, rung: Rung, records: Sequence[Record]) -> bool:
        """Whether the longest trial of this rung so far fits into what is left."""
        left = self.left()
        longest = max((r.outcome.seconds for r in records if r.rung == rung and r.outcome), default=0.0)
        return left is None or left > longest


def _processor_seconds() -> float:
    """Of this process and of those that it started and that ended: what a busy machine does not change much."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    rows = []
    with Terminal() as progress:
        for seed in (int(part) for part in arguments.seeds.split(",")):
            for way in arguments.ways.split(","):
                rows.append({"seed": seed, "way": way, **_tried(arguments, way, seed, progress)})
                progress.say(json.dumps(rows[-1]))
    guided = {row["seed"]: row["hypervolume"] for row in rows if row["way"] == "guided"}
    for row in rows:
        if row["seed"] in guided:
            row["guided / this"] = (
                round(guided[row["seed"]] / row["hypervolume"], 3) if row["hypervolume"] else math.inf
            )
    print(dump(rows))


def _tried(arguments: argparse.Namespace, way: str, seed: int, progress: Progress) -> dict[str, Any]:
    """What one way finds with one seed; from its folder if it was done before."""
    out = Path(arguments.out) / f"{way}-{seed}"
    done = out / "result.json"
    if done.is_file():
        return dict(json.loads(done.read_text(encoding="utf-8")))
    out.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(out / "cache")  # nobody is given another's sensitivity map
    goals = _goals(arguments, "guided" if way in ("guided", "uniform") else "random", seed)
    place = Place(arguments.task, out)
    _same_space(Path(arguments.out) / f"guided-{seed}", place, goals)
    worker = prepare(goals, place, progress=progress, now=_processor_seconds)
    worker.clock = _Budget(**vars(worker.clock))
    if way == "uniform":
        _in_full(worker, _plain(worker))
    elif way == "random":
        _in_full(worker, None)
    else:
        worker.work()
    view, used = worker.view(), worker.clock.used()
    result = _summary(worker, view) | {"seconds": round(used)}
    write_whole(done, json.dumps(result).encode())
    write_whole(out / FILE, frontier_of(worker, view).to_json().encode())
    worker.store.close()
    return result


def _same_space(guided: Path, place: Place, goals: Goals) -> None:
    """Take over what the guided search decided by the speed of the machine when it began."""
    if guided == place.out or not (guided / "study.db").is_file():
        return
    first = Store(Place(place.task, guided).url, goals.name, guided, shared=False)
    own = Store(place.url, goals.name, place.out, shared=False)
    if "decided" not in own.facts():
        own.note("decided", first.facts()["decided"])
    first.close()
    own.close()


def _goals(arguments: argparse.Namespace, sampler: str, seed: int) -> Goals:
    given: list[tuple[str, str, Any]] = [
        ("--minutes", "time", None if arguments.minutes is None else f"{60 * arguments.minutes}s"),
        ("--trials", "trials", arguments.trials),
        ("--max-drop", "max_drop", arguments.max_drop),
        ("--sampler", "sampler", sampler),
    ]
    return load(None, [*(item for item in given if item[2] is not None), ("--seed", "seed", seed)])


def _in_full(worker: Worker, points: Sequence[dict[str, Any]] | None) -> None:
    """Try points in full, one after the other; drawn at random if none are given."""
    while True:
        records = worker.store.records()
        if points is None:
            goals, view = worker.space.goals, worker.view()
            drawn = draw(worker.space, view.points, view.estimates, index=len(records))
            enough = goals.trials is not None and len(records) >= goals.trials
            if drawn is None or enough or not worker.clock.has_time_for(2, records):
                return
            point = drawn.point
        else:
            left = [point for point in points if all(point != record.point for record in records)]
            if not left:
                return
            point = left[0]
        number = worker.store.begin(worker.space, point, 2, "random" if points is None else "seed")
        assert number is not None
        worker.store.finish(number, worker.evaluator.at(point, 2))


def _plain(worker: Worker) -> list[dict[str, Any]]:
    """The same ratio of every layer, in 8 bits if the format has them, with the retraining of the first points."""
    space = worker.space
    middle = space.removing(0.5)
    points = []
    for level in _LEVELS:
        point = dict(middle)
        for knob in space.knobs:
            if knob.name in ("units", "width", "heads"):
                point[knob.name] = level
            elif knob.name.endswith(".map"):
                point[knob.name] = 0.0
            elif knob.name == "rank":
                point[knob.name] = knob.high
        points.append(space.canonical(point))
    return points


def _summary(worker: Worker, view: View) -> dict[str, Any]:
    original = worker.original.bytes
    goals = worker.space.goals
    assert goals.max_drop is not None
    values = [(_loss(view, estimate.number), math.log(estimate.bytes / original)) for estimate in in_full(view)]
    best = candidates(view, goals).confirmed
    return {
        "points": len(view.points),
        "in full": len(in_full(view)),
        "hypervolume": round(hypervolume(values, (LOSSES * goals.max_drop, 0.0)), 5),
        "best": None if not best else round(best[0].bytes),
        "best loses": None if not best else round(_loss(view, best[0].number), 5),
        "original": original,
    }


def _loss(view: View, number: int) -> float:
    """By `evaluate`."""
    outcome = next(trail for trail in view.points if trail.number == number).outcome(2)
    assert outcome is not None
    drop = outcome.unseen or outcome.drop
    assert drop is not None
    return drop.value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="FILE.py[:NAME]")
    parser.add_argument("--max-drop", required=True)
    parser.add_argument("--minutes", type=float, help="processor time of each way")
    parser.add_argument("--trials", help="points of each way, instead of a time")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--ways", default=_WAYS, help=f"guided first: the others take over its space [{_WAYS}]")
    parser.add_argument("--out", default="runs/search-benchmark")
    arguments = parser.parse_args()
    if (arguments.minutes is None) == (arguments.trials is None):
        parser.error("give one of --minutes and --trials")
    return arguments


if __name__ == "__main__":
    main()
