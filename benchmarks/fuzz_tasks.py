"""Random tasks, good and faulty: is each accepted, or refused with its own cause, quickly and without a traceback?

    python benchmarks/fuzz_tasks.py [--count 300] [--seed 0] [--only FAULT]

Each task is tried as `compressor run` does before any work (the dry run), under a watchdog of 10 s. Exit 1 if a verdict
is wrong. The grammar is in `tests/pipeline/fuzzing/`; its first tasks are also a test.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.pipeline.fuzzing.faults import FAULTS
from tests.pipeline.fuzzing.verdict import GOOD, SECONDS, case, judge


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a part of the name of faults")
    options = parser.parse_args()
    wrong, kinds, slowest, started = [], Counter(), 0.0, time.monotonic()
    for index in range(options.count):
        tried = case(options.seed, index)
        if options.only and options.only not in tried.fault:
            continue
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # a hang inside of a kernel, which no signal ends
        begin = time.monotonic()
        verdict = judge(tried)
        slowest = max(slowest, time.monotonic() - begin)
        kinds[tried.fault] += 1
        if verdict:
            wrong.append(tried.fault)
            print(f"{index}: {tried.fault}: {verdict[:600]}\n    {tried.choice}")
    faulthandler.cancel_dump_traceback_later()
    total = kinds.total()
    print(
        f"{total - len(wrong)} of {total} verdicts right: {kinds[GOOD]} good tasks, {len(kinds) - (GOOD in kinds)} of "
        f"{len(FAULTS)} kinds of faults; the slowest took {slowest:.1f} s, all {time.monotonic() - started:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
