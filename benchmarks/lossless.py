"""Takes dead units out of random recurrent networks: `python benchmarks/lossless.py --count 500`.

Wrapped and subclassed layers, folded weight normalisation, functions that make something of 0, several consumers: see
`tests/surgery/random_networks.py`. What the tool accepts must give the same outputs to 1e-9 in float64.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.surgery.test_random_networks import difference, removed

TOLERANCE = 1e-9


def main() -> int:
    """Print how many were accepted and the largest difference; exit code 1 if one is not lossless."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    count = parser.parse_args().count
    accepted, wrong, worst = 0, [], 0.0
    for seed in range(count):
        case, smaller = removed.__wrapped__(seed)  # without keeping all of them
        if smaller is None:
            continue
        accepted += 1
        error = difference(case.model, smaller)
        worst = max(worst, error)
        wrong += [f"seed {seed}: {case.name}: {error:.2g}"] if error > TOLERANCE else []
    print(
        f"{accepted} of {count} accepted; largest difference {worst:.2g}; {len(wrong)} not lossless", *wrong, sep="\n"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
