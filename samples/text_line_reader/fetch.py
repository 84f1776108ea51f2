"""Fetches the text-line reader's weights, fonts and a word list by package name, once.

Weights: `pip download legere` (MIT); only the checkpoint is taken out of the wheel, no code of it runs.
Fonts and words: `apt-get download` of the packages in `lines.py`, unpacked by `dpkg-deb -x`; nothing is installed.
All of it lands in the git-ignored folder `cache/` beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lines import CACHE, PACKAGES, WEIGHTS

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_debian, from_wheel, report


def fetch() -> None:
    """Write what is missing."""
    from_wheel("legere", "0.11.0", {"legere/data/model.pt": CACHE / WEIGHTS})
    for package, version in PACKAGES.items():
        from_debian(package, version, CACHE / package)


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
