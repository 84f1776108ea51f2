"""The frontier of a search against random search over the same space with the same budget, and against plain recipes.

    python benchmarks/search.py samples/japanese_vowels/task.py --max-drop 0.01 --time 5min --seeds 0,1,2

For each seed both samplers search; the hypervolume is the area that a frontier dominates in the plane of (loss, log of
bytes), up to five times the allowed loss and the original's size, so that equal ratios of bytes count the same. Uniform
ratios are the points `units` (or `width`, `heads`) 0.25, 0.5 and 0.75 of every layer alike with 8 bits and the middle
retraining, tried in full. Everything is written to DIR, and an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.cli.progress import Terminal
from compressor.plain_yaml import dump
from compressor.report import SearchReport
from compressor.studies.search.estimates import hypervolume
from compressor.studies.search.goals import Goals, load
from compressor.studies.search.place import Place
from compressor.studies.search.preparing import prepare
from compressor.studies.search.search import search

if TYPE_CHECKING:
    from compressor.progress import Progress

_LOSSES = 5.0
_LEVELS = (0.25, 0.5, 0.75)


def main() -> None:
    arguments = _arguments()
    seeds = [int(part) for part in arguments.seeds.split(",")]
    rows = []
    with Terminal() as progress:
        for seed in seeds:
            reports = {sampler: _searched(arguments, sampler, seed, progress) for sampler in ("guided", "random")}
            areas = {sampler: area(report) for sampler, report in reports.items()}
            uniform = _uniform(arguments, reports["guided"], seed)
            rows.append(
                {
                    "seed": seed,
                    **{f"{sampler} best": _best(report) for sampler, report in reports.items()},
                    **{f"{sampler} hypervolume": round(value, 5) for sampler, value in areas.items()},
                    "uniform hypervolume": round(uniform, 5),
                    "guided / random": round(areas["guided"] / areas["random"], 3) if areas["random"] else math.inf,
                }
            )
            progress.say(json.dumps(rows[-1]))
    print(dump(rows))


def area(report: SearchReport) -> float:
    """Hypervolume of the points that were tried in full."""
    points = [
        (point.drop.value, math.log(point.bytes / report.original_bytes))
        for point in report.points
        if point.rung == 2 and point.drop is not None and point.bytes
    ]
    return hypervolume(points, (_LOSSES * float(report.goals["max_drop"]), 0.0))


def _searched(arguments: argparse.Namespace, sampler: str, seed: int, progress: Progress) -> SearchReport:
    out = Path(arguments.out) / f"{sampler}-{seed}"
    report = out / "report.json"
    if report.is_file():
        return SearchReport.from_json(report.read_text(encoding="utf-8"))
    return search(_goals(arguments, sampler, seed), Place(arguments.task, out), progress=progress)


def _goals(arguments: argparse.Namespace, sampler: str, seed: int) -> Goals:
    budget: list[tuple[str, str, Any]] = [("--time", "time", arguments.time), ("--trials", "trials", arguments.trials)]
    given = [*budget, ("--max-drop", "max_drop", arguments.max_drop), ("--sampler", "sampler", sampler)]
    return load(None, [*(item for item in given if item[2] is not None), ("--seed", "seed", seed)])


def _uniform(arguments: argparse.Namespace, guided: SearchReport, seed: int) -> float:
    """Hypervolume of the same ratio of every layer with 8 bits."""
    path = Path(arguments.out) / f"uniform-{seed}.json"
    if not path.is_file():
        worker = prepare(
            _goals(arguments, "guided", seed), Place(arguments.task, Path(arguments.out) / f"guided-{seed}")
        )
        space = worker.space
        middle = space.seeds()[-1] | ({"precision": "int8"} if len(space.precisions) > 1 else {})
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
            points.append(worker.evaluator.at(point, 2).stored())
        path.write_text(json.dumps(points), encoding="utf-8")
    known = [item for item in json.loads(path.read_text(encoding="utf-8")) if item.get("bytes")]
    values = [(item["drop"]["value"], math.log(item["bytes"] / guided.original_bytes)) for item in known]
    return hypervolume(values, (_LOSSES * float(guided.goals["max_drop"]), 0.0))


def _best(report: SearchReport) -> str:
    if report.best_bytes is None or report.best_drop is None:
        return "none"
    return f"{report.best_bytes} bytes, loss {report.best_drop.value:.4f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="FILE.py[:NAME]")
    parser.add_argument("--max-drop", required=True)
    parser.add_argument("--time", help="of each search, such as 40min")
    parser.add_argument("--trials", help="of each search, instead of a time")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", default="runs/search-benchmark")
    return parser.parse_args()


if __name__ == "__main__":
    main()
