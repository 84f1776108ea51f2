"""Is the sentence good or bad about the movie? Run `fetch.py` first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from network import Classifier, TransformerClassifier
from reviews import LONGEST, PAD, WORDS, Sentence, encode, reviews, signs
from torch import Tensor, nn

from compressor import Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

BATCH, SCORING_BATCH = 64, 250
STEEPNESS = 1.5
"""How sure a rating makes a label: a rating r is good with probability sigmoid(1.5 r)."""


class MovieSentiment(Task):
    """Accuracy of the sign of the mean rating on 2,000 sentences that neither training nor retraining sees."""

    inputs: Mapping[str, Mapping[int, str]] = {"words": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch"}}
    length, min_length, max_length = 20, 1, LONGEST
    weights = Path(__file__).parent / "attentive.safetensors"

    def model(self) -> nn.Module:
        return load_weights(Classifier(), self.weights)

    def example(self, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Random words, the first sentence of the full length and the others shorter."""
        random = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, length + 1, (batch,), generator=random)
        lengths[0] = length
        words = torch.randint(2, WORDS, (batch, length), generator=random)
        return words.masked_fill(torch.arange(length) >= lengths[:, None], PAD), lengths

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """The learnt sentences with their mean ratings (B,), -4..4."""
        sentences = reviews().learnt
        for chosen in torch.randperm(len(sentences), generator=generator).split(BATCH):
            part = [sentences[index] for index in chosen.tolist()]
            yield encode(part, signs()), torch.tensor([sentence.rating for sentence in part])

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        good = torch.sigmoid(STEEPNESS * target)
        return nn.functional.cross_entropy(outputs, torch.stack([1.0 - good, good], dim=1))

    def evaluate(self, forward: Forward) -> Tensor:
        return correct(forward, reviews().scored)

    def validate(self, forward: Forward) -> Tensor:
        return correct(forward, reviews().validated)


class Encoder(MovieSentiment):
    """The same sentences and score for a Transformer encoder under the pooling."""

    weights = Path(__file__).parent / "encoder.safetensors"

    def model(self) -> nn.Module:
        return load_weights(TransformerClassifier(), self.weights)


def correct(forward: Forward, sentences: list[Sentence]) -> Tensor:
    """1 where the sign of the mean rating was found, else 0 (N,)."""
    found = []
    for start in range(0, len(sentences), SCORING_BATCH):
        logits = forward(*encode(sentences[start : start + SCORING_BATCH], signs()))
        found.append(torch.as_tensor(logits).argmax(dim=1) == 1)
    good = torch.tensor([sentence.rating > 0 for sentence in sentences])
    return (torch.cat(found) == good).float()
