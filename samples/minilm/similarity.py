"""What is left of the original's embeddings: a linear probe on them, and the similarities of sentences."""

from __future__ import annotations

import torch
from torch import Tensor

PENALTY = 1.0
"""On the squared length of the probe's weights; 0.01 to 100 move its accuracy by 2 points."""
FOLDS = 5


def fit(embeddings: Tensor, good: Tensor, penalty: float = PENALTY) -> Tensor:
    """Weights (E + 1,) of ridge regression on -1 (bad) and 1 (good), the offset last and without a penalty.

    w = (X^T X + penalty I)^-1 X^T y in float64, for embeddings (N, E) and `good` (N,), boolean.
    """
    rows = _with_one(embeddings)
    ridge = torch.full((rows.shape[1],), penalty, dtype=torch.float64)
    ridge[-1] = 0.0
    signs = torch.where(good, 1.0, -1.0).to(torch.float64)
    return torch.linalg.solve(rows.T @ rows + ridge.diag(), rows.T @ signs)


def correct(probe: Tensor, embeddings: Tensor, good: Tensor) -> Tensor:
    """1 where the probe says what people say, else 0 (N,)."""
    return ((_with_one(embeddings) @ probe > 0.0) == good).float()


def cross_validated(embeddings: Tensor, good: Tensor) -> float:
    """Accuracy of probes fitted to four fifths of these embeddings each, on the fifth that is left."""
    fold = torch.arange(len(good)) % FOLDS
    rights = [
        correct(fit(embeddings[fold != k], good[fold != k]), embeddings[fold == k], good[fold == k])
        for k in range(FOLDS)
    ]
    return float(torch.cat(rights).mean())


def mean_cosine(embeddings: Tensor, originals: Tensor) -> float:
    """Of every sentence's embedding with the original's (N, E), which has as many numbers."""
    return float(torch.nn.functional.cosine_similarity(embeddings, originals, dim=1).mean())


def rank_correlation(embeddings: Tensor, originals: Tensor) -> float:
    """Spearman's, of the cosine similarities of all pairs of sentences with those of the originals (N, E)."""
    ranks = torch.stack([_pairs(part).argsort().argsort() for part in (embeddings, originals)]).to(torch.float64)
    return float(torch.corrcoef(ranks)[0, 1])


def _pairs(embeddings: Tensor) -> Tensor:
    """Cosine similarity of each pair of rows, once (N (N - 1) / 2,)."""
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[first, second]


def _with_one(embeddings: Tensor) -> Tensor:
    rows = embeddings.to(torch.float64)
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
