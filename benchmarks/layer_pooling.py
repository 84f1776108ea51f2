"""Does cutting top layers cost less if all layers are heard? MiniLM, maps fitted by least squares to means of layers.

    python samples/minilm/fetch.py
    python benchmarks/layer_pooling.py FOLDER      # docs/results/depth.md; minutes of one core the first time

The model's own pooling is the mean over positions, and means of a layer's outputs are all that a linear map behind it
reads: the encoder runs once, and every row below is a small regression on what is kept in FOLDER. A map is fitted to
half of the learnt sentences, drawn anew for each seed, without labels: from the means of the layers that are left to
the mean that the whole encoder gives.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "samples" / "minilm")]

from bert import LAYERS, WIDTH, SentenceEncoder, load  # noqa: E402
from sentences import BATCH, WEIGHTS, Sentence, cached, padded, pieces, reviews  # noqa: E402
from similarity import correct, fit, mean_cosine  # noqa: E402

RIDGE = 1e-2
"""Times the mean square of an input."""
KEPT = (5, 4, 3, 2, 1)
PARTS = ("learnt", "scored")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    means = features(options.folder)
    whole = {part: nn.functional.normalize(means[part][:, LAYERS], dim=1) for part in PARTS}
    good = {part: torch.tensor([s.rating > 0.0 for s in getattr(reviews(), part)]) for part in PARTS}
    probe = fit(whole["learnt"], good["learnt"])

    def score(embeddings: Tensor) -> tuple[float, float]:
        unit = nn.functional.normalize(embeddings.float(), dim=1)
        return float(correct(probe, unit, good["scored"]).mean()), mean_cosine(unit, whole["scored"])

    print("| layers kept | last layer's mean | a map of it | a map of all layers |\n|---|---|---|---|")
    print(f"| {LAYERS} | {cell([score(whole['scored'])])} | | |")
    regressions = [Regression(means["learnt"], seed) for seed in range(options.seeds)]
    for kept in KEPT:
        cells = [cell([score(means["scored"][:, kept])])]
        for first in (kept, 0):
            cells.append(cell([score(each.predicted(means["scored"], first, kept)) for each in regressions]))
        print(f"| {kept} | {' | '.join(cells)} |", flush=True)


def cell(scores: list[tuple[float, float]]) -> str:
    """Means, and the range of the accuracy if there are several."""
    accuracies, cosines = zip(*scores, strict=True)
    spread = f" ({min(accuracies):.2%} to {max(accuracies):.2%})" if len(scores) > 1 else ""
    return f"{statistics.mean(accuracies):.2%}{spread}, cosine {statistics.mean(cosines):.3f}"


class Regression:
    """Of the whole encoder's mean on means of layers, from half of the sentences; its sums serve all rows."""

    def __init__(self, means: Tensor, seed: int) -> None:
        drawn = torch.randperm(len(means), generator=torch.Generator().manual_seed(seed))[: len(means) // 2]
        inputs = _with_one(means[drawn])
        self._inner = inputs.T @ inputs
        self._cross = inputs.T @ means[drawn, LAYERS].double()

    def predicted(self, means: Tensor, first: int, last: int) -> Tensor:
        """By a ridge regression on layers `first` to `last` (N, E)."""
        columns = torch.tensor([*range(first * WIDTH, (last + 1) * WIDTH), (LAYERS + 1) * WIDTH])
        inner = self._inner[columns][:, columns].clone()
        inner.diagonal()[:-1] += RIDGE * inner.diagonal()[:-1].mean()
        weights = torch.linalg.solve(inner, self._cross[columns])
        return _with_one(means)[:, columns] @ weights


def _with_one(means: Tensor) -> Tensor:
    return nn.functional.pad(means.double().flatten(1), (0, 1), value=1.0)


def features(folder: Path) -> dict[str, Tensor]:
    """For each part the means over positions of what enters the layers and of what leaves each (N, 7, 384)."""
    path = folder / "minilm-means.pt"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        model = load(cached(WEIGHTS))
        torch.save({part: _means(model, getattr(reviews(), part)) for part in PARTS}, path)
    found: dict[str, Tensor] = torch.load(path, weights_only=True)
    return found


def _means(model: SentenceEncoder, sentences: list[Sentence]) -> Tensor:
    texts = [sentence.text for sentence in sentences]
    order = sorted(range(len(texts)), key=lambda i: len(pieces(texts[i])))
    means = torch.empty(len(texts), LAYERS + 1, WIDTH)
    states: list[Tensor] = []
    handles = [model.norm.register_forward_hook(lambda _module, _args, out: states.append(out))]
    handles += [layer.register_forward_hook(lambda _module, _args, out: states.append(out)) for layer in model.layers]
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            numbers, mask = padded([texts[i] for i in chosen])
            states.clear()
            model(numbers, mask)
            real = mask.float()[:, :, None]
            means[chosen] = torch.stack([(state * real).sum(1) / real.sum(1) for state in states], 1)
    for handle in handles:
        handle.remove()
    return means


if __name__ == "__main__":
    main()
