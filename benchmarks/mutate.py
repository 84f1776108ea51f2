"""Put small faults into numeric code, one at a time, and see whether a test notices.

    python benchmarks/mutate.py record tests/nn tests/surgery          # which tests run which line
    python benchmarks/mutate.py run --room nn --sample 100 --seed 1    # a random sample of the faults of a room
    python benchmarks/mutate.py again .mutation/nn-1.json              # those that survived, after tests were added

A fault is put into code that is loaded already, in a forked process, so PyTorch is imported and the tests are collected
once; files on disk are never changed. Tests that run the line are tried from the quickest on, up to `--budget` seconds
of processor time. Only lines changed after `record` need it anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest

from benchmarks.mutation.operators import Fault, faults
from benchmarks.mutation.reach import ROOT, Candidate, Recorder, reaching
from benchmarks.mutation.trials import INVALID, UNNOTICED, UNREACHED, Outcome, Trial, collected

if TYPE_CHECKING:
    from collections.abc import Sequence

PARITY = ("compressor/measure/parity.py", "compressor/measure/agreement.py", "compressor/measure/float_noise.py")
ROOMS = {
    "nn": ("compressor/nn",),
    "surgery": ("compressor/surgery",),
    "measure": ("compressor/measure",),
    "quantization": ("exporters/quantization",),
    "parity": (*PARITY, "exporters/parity.py", "exporters/checks.py"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", help="run tests, and keep which lines each runs")
    record.add_argument("tests", nargs="+")
    record.add_argument("--most", type=int, help="parametrizations of a test function that are run; all by default")
    run = commands.add_parser("run", help="try a sample of the faults of a room")
    run.add_argument("--room", choices=ROOMS, required=True)
    run.add_argument("--sample", type=int, default=100)
    run.add_argument("--seed", type=int, default=0)
    again = commands.add_parser("again", help="try the survivors of a run once more")
    again.add_argument("file", type=Path)
    for command in (run, again):
        command.add_argument("--budget", type=float, default=60.0, help="seconds of tests for a fault")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.command == "record":
        arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options.tests]
        sys.exit(pytest.main(arguments, plugins=[Recorder(options.most)]))
    if options.command == "run":
        sample, file = drawn(options.room, options.sample, options.seed), f"{options.room}-{options.seed}.json"
        tried(sample, ROOT / ".mutation" / file, options.budget)
    else:
        before = json.loads(options.file.read_text("utf-8"))
        again = [item for item in before if item["verdict"] in UNNOTICED]
        tried(left(again), options.file, options.budget, [item for item in before if item not in again])


def of_room(room: str) -> list[Fault]:
    """All faults that can be put into a room."""
    files: list[Path] = []
    for name in ROOMS[room]:
        path = ROOT / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    own = [str(path.relative_to(ROOT)) for path in files]
    skipped = () if room == "parity" else ROOMS["parity"]
    return [fault for name in own if name not in skipped for fault in faults(name, (ROOT / name).read_text("utf-8"))]


def drawn(room: str, size: int, seed: int) -> list[Fault]:
    """A random sample of the faults of a room."""
    return random.Random(seed).sample(of_room(room), size)


def left(undetected: list[dict[str, Any]]) -> list[Fault]:
    """The faults of a former run, found by their text in the files as they are now."""
    found: list[Fault] = []
    for fault in (item["fault"] for item in undetected):
        now = faults(fault["path"], (ROOT / fault["path"]).read_text("utf-8"))
        alike = [other for other in now if other.text == fault["text"] and other not in found]
        places = {other: (abs(other.line - fault["line"]), abs(other.column - fault["column"])) for other in alike}
        found += sorted(alike, key=places.__getitem__)[:1]
    return found


def tried(sample: list[Fault], file: Path, budget: float, before: Sequence[dict[str, Any]] = ()) -> None:
    """Try faults, print what becomes of each, and keep it in a file, beside what was known before."""
    trials = [Trial(fault, within(reaching(fault.path, fault.first, fault.last), budget)) for fault in sample]
    outcomes = list(before)
    file.parent.mkdir(parents=True, exist_ok=True)

    def told(outcome: Outcome) -> None:
        outcomes.append(dataclasses.asdict(outcome))
        figures = f"{outcome.verdict:9} {outcome.seconds:6.1f} s {outcome.tried:4}"
        print(f"{figures} {outcome.fault} {outcome.test}", flush=True)
        waiting = [{"fault": dataclasses.asdict(fault), "verdict": UNREACHED} for fault in sample]
        done = {(item["fault"]["path"], item["fault"]["number"]) for item in outcomes}
        rest = [item for item in waiting if before and (item["fault"]["path"], item["fault"]["number"]) not in done]
        file.write_text(json.dumps([*outcomes, *rest], indent=1), "utf-8")

    collected(trials, told)
    valid = [item for item in outcomes if item["verdict"] != INVALID]
    noticed = [item for item in valid if item["verdict"] not in UNNOTICED]
    low, high = interval(len(noticed), len(valid))
    print(f"{len(noticed)} of {len(valid)} noticed: {len(noticed) / len(valid):.1%} [{low:.1%}, {high:.1%}]; {file}")


def within(tests: Sequence[Candidate], budget: float) -> list[Candidate]:
    """The quickest tests that fit into a budget of seconds; at least one."""
    total, kept = 0.0, []
    for test in tests:
        total += test.seconds
        if kept and total > budget:
            break
        kept.append(test)
    return kept


def interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share."""
    z, share = 1.96, count / total
    centre = share + z**2 / (2 * total)
    width = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return (centre - width) / (1 + z**2 / total), (centre + width) / (1 + z**2 / total)


if __name__ == "__main__":
    main()
