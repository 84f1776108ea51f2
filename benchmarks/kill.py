"""Kills a run at random moments, lets the same command go on, and compares what it ends with to an undisturbed run.

    python benchmarks/kill.py --count 100
    python benchmarks/kill.py --count 20 --recipe lstm-half --task samples/japanese_vowels/task.py:Lstm

Each run is a process of its own, as from a shell, with its own seed of Python's hashes. It gets SIGKILL after a random
time, drawn evenly from the time that the undisturbed run took, and is started again; this is repeated until it ends.
Its files must have the same bytes as those of the undisturbed run, and `report.json` the same facts, but for times and
memory. Exits with 1 if one differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.files.staged import UNFINISHED
from compressor.pipeline.comparing import facts_that_differ, files_that_differ

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Survivor:
    """One run that was killed again and again."""

    kills: int
    where: list[str]
    """The last line of its log at each kill."""
    differing: list[str]
    seconds: float


def command(options: argparse.Namespace, out: Path) -> list[str]:
    """As from a shell."""
    own = ["run", options.recipe, "--task", options.task, "--out", str(out), "--device", "cpu"]
    overrides = [part for value in options.set for part in ("--set", value)]
    return [sys.executable, "-m", "compressor.cli", *own, *overrides, *(["--quick"] if options.quick else [])]


def whole(options: argparse.Namespace, out: Path) -> float:
    """Seconds of an undisturbed run."""
    started = time.monotonic()
    done = subprocess.run(command(options, out), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return time.monotonic() - started


def killed(options: argparse.Namespace, out: Path, seconds: float, moments: random.Random, most: int) -> Survivor:
    """Start, kill, start again, at most so many times; then let it end."""
    started = time.monotonic()
    where: list[str] = []
    while True:
        process = subprocess.Popen(
            command(options, out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONHASHSEED": str(moments.randrange(2**32))},
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=moments.uniform(0.0, seconds) if len(where) < most else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            where.append(last_line(out))
            continue
        if process.returncode not in (0, 1):
            return Survivor(len(where), where, [f"exit code {process.returncode}: {said.strip()}"], 0.0)
        if where or not most:
            return Survivor(len(where), where, [], time.monotonic() - started)


def last_line(out: Path) -> str:
    """What a killed run was doing."""
    for log in (out / UNFINISHED / "run.log", out / "run.log"):
        if log.is_file():
            return (log.read_text().splitlines() or [""])[-1][21:]
    return "before its first part"


def compared(first: Path, second: Path) -> list[str]:
    """What differs between two finished runs."""
    reports: list[Any] = [json.loads((out / "report.json").read_text()) for out in (first, second)]
    return [*files_that_differ(first, second, reports[0]["files"]), *facts_that_differ(*reports)]


def main() -> None:
    """Print a table, a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="kills in all")
    parser.add_argument("--kills", type=int, default=5, help="of one run, at most")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--task", default="samples/japanese_vowels/task.py")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="rehearsals, which are faster")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    kills, same, differing = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        seconds = whole(options, Path(folder) / "whole")
        print(f"undisturbed: {seconds:.1f} s; killed at random moments of that time\n", flush=True)
        print(f"{'run':>4}{'kills':>7}{'seconds':>9}  bytes  killed while")
        while kills < options.count:
            out = Path(folder) / str(same + differing)
            one = killed(options, out, seconds, moments, min(options.kills, options.count - kills))
            wrong = one.differing or compared(Path(folder) / "whole", out)
            kills, same, differing = kills + one.kills, same + (not wrong), differing + bool(wrong)
            doing = "; ".join(dict.fromkeys(one.where))
            row = f"{same + differing:>4}{one.kills:>7}{one.seconds:>9.1f}"
            print(f"{row}  {'OTHER' if wrong else 'same '}  {doing}", flush=True)
            for line in wrong:
                print(f"      {line}", flush=True)
    print(f"\n{kills} kills in {same + differing} runs; {same} of {same + differing} ended with the same bytes")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
