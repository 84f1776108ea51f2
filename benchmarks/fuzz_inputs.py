"""Random input of every kind: is it accepted, or refused with an error, quickly and without a traceback?

    python benchmarks/fuzz_inputs.py [--count 2000] [--seed 0] [--kind KIND]

Wrong are a traceback or exit code 70, no answer in 30 s, a process that dies or takes more than 8 GiB, a control
character that reaches the terminal, code of a file that runs, a good input that is refused, and a bad one of the lists
(`MUST_REFUSE` in `tests/fuzzing/`, `FAULTS` in `tests/fuzzing/tasks/`) that is accepted. Exit 1 if there is one.
`--first N --count 1` repeats the input of number N. The first 300 are also a test.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KINDS = ("recipes", "tasks", "checkpoints", "onnx", "folders", "options", "searches", "journals")
CHUNK = 250
"""Inputs that one process tries."""
DEAD = 240
"""Seconds without an answer after which a process is ended: a hang that no signal ends."""
MEMORY = 8 << 30


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return work(options)
    started, tried = time.monotonic(), []
    number, end = options.first, options.first + options.count
    while number < end:
        for answer in answers(options, number, min(CHUNK, end - number)):
            tried.append(answer)
            number = answer["number"] + 1
            if answer["wrong"]:
                print(f"{answer['number']}: {answer['kind']}: {answer['what']}: {answer['wrong'][:1500]}", flush=True)
    show(tried)
    print(f"seed {options.seed}, {len(tried)} inputs, {time.monotonic() - started:.0f} s")
    return 1 if any(answer["wrong"] for answer in tried) else 0


def work(options: argparse.Namespace) -> int:
    """In a process of its own: try inputs, and write a line of JSON before and after each."""
    sys.path.insert(0, str(ROOT))
    from tests.fuzzing.kinds import attempt, kind_of

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for number in range(options.first, options.first + options.count):
        faulthandler.dump_traceback_later(DEAD, exit=True)
        begun = {"number": number, "kind": options.kind or kind_of(number)}
        print(json.dumps(begun), file=answers, flush=True)
        started = time.monotonic()
        tried = attempt(options.seed, number, options.kind)
        print(json.dumps({**begun, **tried._asdict(), "s": time.monotonic() - started}), file=answers, flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 0


def answers(options: argparse.Namespace, first: int, count: int) -> Any:
    """What a worker says of each input; if it dies, that is the answer of the one it was at."""
    command = [sys.executable, __file__, "--worker", "--seed", str(options.seed), "--first", str(first)]
    command += ["--count", str(count), *(("--kind", options.kind) if options.kind else ())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun: dict[str, Any] = {"number": first, "kind": "none"}
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                answer = json.loads(line)
                if "wrong" in answer:
                    yield answer
                begun = {} if "wrong" in answer else answer
        said.seek(0)
        last = said.read()[-1200:]
    if begun:
        wrong = f"its process ended ({process.returncode}): {last}"
        yield {**begun, "what": "", "refused": False, "wrong": wrong, "s": 0.0}


def show(tried: list[dict[str, Any]]) -> None:
    """A row for each kind."""
    print(f"{'kind':12} {'inputs':>6} {'refused':>8} {'accepted':>8} {'wrong':>6} {'ways':>6} {'slowest s':>10}")
    for kind in KINDS:
        own = [answer for answer in tried if answer["kind"] == kind]
        counts = Counter("wrong" if a["wrong"] else "refused" if a["refused"] else "accepted" for a in own)
        ways, slowest = len({answer["what"] for answer in own}), max((answer["s"] for answer in own), default=0.0)
        row = f"{kind:12} {len(own):6} {counts['refused']:8} {counts['accepted']:8} {counts['wrong']:6}"
        print(f"{row} {ways:6} {slowest:10.1f}")


if __name__ == "__main__":
    sys.exit(main())
