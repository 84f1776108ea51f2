"""Kills a run or a search at random moments, lets the same command go on, and compares what it ends with.

    python benchmarks/kill.py --count 100
    python benchmarks/kill.py --count 20 --recipe units-half --task samples/japanese_vowels/task.py:Lstm
    python benchmarks/kill.py --count 20 --kills 10 --search --option=--trials=8 --option=--max-drop=0.05

Each run is a process of its own, as from a shell, with its own seed of Python's hashes. An undisturbed one says which
parts there are, by its log, its study and its files, and how long each takes. A kill hits a part drawn evenly, so the
last renames as often as a training, at a moment of it drawn evenly. After each SIGKILL the same command is given again,
until no kill is left; then it ends. Its files must have the same bytes as those of the undisturbed run, its study the
same trials, and its report the same facts, but for times and memory. Exits with 1 if one differs.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.kills.subjects import Run, Search, Subject  # noqa: E402

_LOOK = 0.004
"""Seconds between two looks at how far a process is."""


@dataclass(frozen=True)
class Part:
    """A part of the undisturbed run."""

    name: str
    seconds: float


@dataclass
class Survivor:
    """One run that was killed again and again."""

    where: list[str]
    """The part of each kill."""
    seconds: float
    wrong: list[str]
    """Why it did not end as it should."""


def start(subject: Subject, out: Path, hashes: int) -> subprocess.Popen[str]:
    """A process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hashes)}
    return subprocess.Popen(
        subject.command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def whole(subject: Subject, out: Path) -> list[Part]:
    """The parts of an undisturbed run."""
    process = start(subject, out, 0)
    seen: dict[str, float] = {}
    while process.poll() is None:
        for name in subject.happened(out, process.pid):
            seen.setdefault(name, time.monotonic())
        time.sleep(_LOOK)
    ended = time.monotonic()
    _, said = process.communicate()
    if process.returncode not in (0, 1):
        raise SystemExit(said)
    names, times = list(seen), [*seen.values(), ended]
    return [Part(name, times[place + 1] - times[place]) for place, name in enumerate(names)]


def reached(subject: Subject, out: Path, process: int, parts: list[Part], place: int) -> str | None:
    """The part in which a process is, if that is the one at `place` or a later one."""
    done = set(subject.happened(out, process))
    return next((part.name for part in reversed(parts[place:]) if part.name in done), None)


def killed(subject: Subject, out: Path, parts: list[Part], places: list[int], draw: random.Random) -> Survivor:
    """Start, kill, start again, until no kill is left; then let it end."""
    started = time.monotonic()
    where: list[str] = []
    for place in sorted(places):
        process = start(subject, out, draw.randrange(2**32))
        while process.poll() is None and (part := reached(subject, out, process.pid, parts, place)) is None:
            time.sleep(_LOOK)
        try:
            _, said = process.communicate(timeout=draw.uniform(0.0, parts[place].seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            where.append(reached(subject, out, process.pid, parts, 0) or part or "")
        else:
            break  # faster than the undisturbed run: it has ended
    else:
        process = start(subject, out, draw.randrange(2**32))
        _, said = process.communicate()
    wrong = [] if process.returncode in (0, 1) else [f"exit code {process.returncode}: {said.strip()}"]
    return Survivor(where, time.monotonic() - started, wrong)


def main() -> None:
    """Print a table, a line for each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--count", type=int, default=20, help="kills in all")
    parser.add_argument("--kills", type=int, default=2, help="of one run, at most")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--search", action="store_true", help="kill a search in place of a run")
    parser.add_argument("--task", default="samples/japanese_vowels/task.py")
    parser.add_argument(
        "--option", action="append", default=[], metavar="--NAME=VALUE", help="of the command, such as --option=--quick"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    more = tuple(options.option)
    subject: Subject = Search(options.task, more) if options.search else Run(options.task, more, options.recipe)
    draw = random.Random(options.seed)
    done: list[Survivor] = []
    doing: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        parts = whole(subject, Path(folder) / "whole")
        print(f"undisturbed: {sum(part.seconds for part in parts):.1f} s, {len(parts)} parts\n", flush=True)
        print(f"{'run':>4}{'kills':>7}{'seconds':>9}  bytes  killed in", flush=True)
        while doing.total() < options.count:
            out = Path(folder) / str(len(done))
            kills = min(options.kills, options.count - doing.total())
            one = killed(subject, out, parts, [draw.randrange(len(parts)) for _ in range(kills)], draw)
            one.wrong = one.wrong or subject.differences(Path(folder) / "whole", out)
            done.append(one)
            doing.update(one.where)
            row = f"{len(done):>4}{len(one.where):>7}{one.seconds:>9.1f}  {'OTHER' if one.wrong else 'same '}"
            print(f"{row}  {'; '.join(one.where)}", flush=True)
            for line in one.wrong:
                print(f"      {line}", flush=True)
    print("\nkilled in")
    for line, times in doing.most_common():
        print(f"{times:>4}  {line}")
    same = sum(not one.wrong for one in done)
    print(f"\n{doing.total()} kills in {len(done)} runs; {same} of {len(done)} ended with the same bytes")
    sys.exit(same < len(done))


if __name__ == "__main__":
    main()
