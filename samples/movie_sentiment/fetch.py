"""Fetches the rated sentences by package name, once.

`pip download vaderSentiment` (MIT licence) as a source archive; the data of its paper are an archive inside. No code of
the package runs. It lands in the git-ignored folder `cache/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reviews import ARCHIVE, CACHE

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_sdist, report


def fetch() -> None:
    """Write what is missing."""
    from_sdist("vaderSentiment", "3.3.2", {f"additional_resources/{ARCHIVE}": CACHE / ARCHIVE})


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
