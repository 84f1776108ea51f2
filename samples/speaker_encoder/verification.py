"""Speaker verification: are two windows of speech the same voice? Scored by the equal error rate."""

from __future__ import annotations

import torch
from torch import Tensor


def equal_error_rate(same: Tensor, different: Tensor) -> float:
    """The error rate, 0..1, at the threshold where as many true pairs are refused as false pairs are accepted.

    A pair is accepted where its score is at least the threshold t, so
    refused(t) = |{same < t}| / |same| rises from 0 to 1 and accepted(t) = |{different >= t}| / |different| falls from
    1 to 0. Between the two thresholds where they cross, both are taken as straight lines.

    Args:
        same: Scores (N,) of pairs of one voice; larger is more alike.
        different: Scores (M,) of pairs of two voices.

    Raises:
        ValueError: One of them is empty or holds a NaN.
    """
    if not len(same) or not len(different) or bool(same.isnan().any()) or bool(different.isnan().any()):
        raise ValueError("an equal error rate needs scores of both kinds, none of them NaN")
    same, different = same.double().sort().values, different.double().sort().values
    infinity = torch.full((1,), torch.inf, dtype=torch.float64)
    thresholds = torch.cat([same, different, infinity]).unique()  # ascending
    refused = torch.searchsorted(same, thresholds).double() / len(same)
    accepted = 1.0 - torch.searchsorted(different, thresholds).double() / len(different)
    gap = refused - accepted  # from -1 at the lowest score, which accepts all, to 1 at infinity
    after = int((gap >= 0.0).nonzero()[0])
    before = after - 1
    weight = -gap[before] / (gap[after] - gap[before])
    return float(refused[before] + weight * (refused[after] - refused[before]))


def trials(embeddings: Tensor, voices: Tensor, speakers: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the pairs to be told apart: (pairs of one voice (N,), pairs of two speakers (M,)).

    Every pair of windows is a trial, once, and its score is the cosine similarity. Two voices of one speaker (the same
    person recorded in two languages) are neither: such a pair is left out.

    Args:
        embeddings: Unit vectors (W, E).
        voices: Which voice each window is of (W,).
        speakers: Which person (W,).
    """
    scores = embeddings @ embeddings.T  # (W, W)
    once = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1)
    one_voice = voices[:, None] == voices
    two_speakers = speakers[:, None] != speakers
    return scores[once & one_voice], scores[once & two_speakers]
