"""Kills a run at random moments, lets the same command go on, and compares what it ends with to an undisturbed run.

    python benchmarks/kill.py --count 100
    python benchmarks/kill.py --count 20 --recipe units-half --task samples/japanese_vowels/task.py:Lstm

Each run is a process of its own, as from a shell, with its own seed of Python's hashes. The moments of its kills are
drawn evenly from the time that the undisturbed run worked, from the first line of its log to its end: half of a short
run is the start of Python, where there is nothing to lose. After each SIGKILL the same command is started again and
works until the next moment; after the last it ends. Its files must have the same bytes as those of the undisturbed run,
and `report.json` the same facts, but for times and memory. Exits with 1 if one differs.
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
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.files.staged import LOG_FILE, UNFINISHED
from compressor.pipeline.comparing import facts_that_differ, files_that_differ

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Survivor:
    """One run that was killed again and again."""

    where: list[str]
    """The last line of its log at each kill."""
    seconds: float
    wrong: list[str]
    """Why it did not end as it should."""


def command(options: argparse.Namespace, out: Path) -> list[str]:
    """As from a shell."""
    own = ["run", options.recipe, "--task", options.task, "--out", str(out), "--device", "cpu"]
    overrides = [part for value in options.set for part in ("--set", value)]
    return [sys.executable, "-m", "compressor.cli", *own, *overrides, *(["--quick"] if options.quick else [])]


def start(options: argparse.Namespace, out: Path, hashes: int) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hashes)}
    return subprocess.Popen(
        command(options, out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def at_work(process: subprocess.Popen[str], out: Path) -> float:
    """When it wrote the first line of its log, or ended."""
    while process.poll() is None and not any(f"process {process.pid}\n" in log.read_text() for log in logs(out)):
        time.sleep(0.005)
    return time.monotonic()


def whole(options: argparse.Namespace, out: Path) -> float:
    """Seconds that an undisturbed run works."""
    process = start(options, out, 0)
    began = at_work(process, out)
    _, said = process.communicate()
    if process.returncode not in (0, 1):
        raise SystemExit(said)
    return time.monotonic() - began


def killed(options: argparse.Namespace, out: Path, moments: list[float], hashes: random.Random) -> Survivor:
    """Start, kill, start again, until no moment is left; then let it end."""
    started = time.monotonic()
    where: list[str] = []
    before = 0.0
    for moment in sorted(moments):
        process = start(options, out, hashes.randrange(2**32))
        left = at_work(process, out) + moment - before - time.monotonic()
        before = moment
        try:
            process.communicate(timeout=max(left, 0.0))
            break  # faster than the undisturbed run: it has ended
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            where.append(last_line(out))
    else:
        process = start(options, out, hashes.randrange(2**32))
    _, said = process.communicate()
    wrong = [] if process.returncode in (0, 1) else [f"exit code {process.returncode}: {said.strip()}"]
    return Survivor(where, time.monotonic() - started, wrong)


def logs(out: Path) -> list[Path]:
    """That of the unfinished run, that of the finished one; those which exist."""
    return [log for log in (out / UNFINISHED / LOG_FILE, out / LOG_FILE) if log.is_file()]


def last_line(out: Path) -> str:
    """What a killed run was doing."""
    lines = next((log.read_text().splitlines() for log in logs(out)), [])
    return lines[-1].partition("  ")[2].partition(" with the unfinished run")[0] if lines else "before its first line"


def compared(first: Path, second: Path) -> list[str]:
    """What differs between two finished runs."""
    reports: list[Any] = [json.loads((out / "report.json").read_text()) for out in (first, second)]
    return [*files_that_differ(first, second, reports[0]["files"]), *facts_that_differ(*reports)]


def main() -> None:
    """Print a table, a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="kills in all")
    parser.add_argument("--kills", type=int, default=2, help="of one run, at most; with many it does not get far")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--task", default="samples/japanese_vowels/task.py")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="rehearsals, which are faster")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    done: list[Survivor] = []
    doing: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        seconds = whole(options, Path(folder) / "whole")
        print(f"undisturbed: {seconds:.1f} s; killed at random moments of that time\n", flush=True)
        print(f"{'run':>4}{'kills':>7}{'seconds':>9}  bytes  killed while", flush=True)
        while doing.total() < options.count:
            out = Path(folder) / str(len(done))
            kills = min(options.kills, options.count - doing.total())
            one = killed(options, out, [draw.uniform(0.0, seconds) for _ in range(kills)], draw)
            one.wrong = one.wrong or compared(Path(folder) / "whole", out)
            done.append(one)
            doing.update(one.where)
            row = f"{len(done):>4}{len(one.where):>7}{one.seconds:>9.1f}  {'OTHER' if one.wrong else 'same '}"
            print(f"{row}  {'; '.join(one.where)}", flush=True)
            for line in one.wrong:
                print(f"      {line}", flush=True)
    print("\nkilled while")
    for line, times in doing.most_common():
        print(f"{times:>4}  {line}")
    same = sum(not one.wrong for one in done)
    print(f"\n{doing.total()} kills in {len(done)} runs; {same} of {len(done)} ended with the same bytes")
    sys.exit(same < len(done))


if __name__ == "__main__":
    main()
