"""Sentences of movie reviews with the mean of their ratings, split three ways, and what the original makes of them.

10,604 sentences, each rated by some 15 people from -4 to 4 for Hutto and Gilbert, "VADER" (ICWSM 2014); the package
vaderSentiment ships the means in its source archive.
"""

from __future__ import annotations

import sys
import tarfile
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from wordpiece import END, PAD, START, UNKNOWN, WordPiece

sys.path.append(str(Path(__file__).parents[1]))

from packages import fetched
from splits import Split, drawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.task.contract import Forward

CACHE = Path(__file__).parent / "cache"
WEIGHTS = "model.safetensors"
VOCABULARY = "vocab.txt"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
EMBEDDINGS = "embeddings.safetensors"
_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

SCORED, VALIDATED = 1_000, 500
NEUTRAL = 0.5
"""Sentences whose mean rating is nearer to 0 are left out: too close to call them good or bad."""
BATCH = 32


@dataclass(frozen=True)
class Sentence:
    """A sentence and the mean of its ratings, -4..4."""

    text: str
    rating: float


def cached(name: str) -> Path:
    """A file that `fetch.py` makes; raises `TaskError` if it has not run."""
    return fetched(CACHE / name, "minilm", "the sentence encoder's data", "86 MB with pip")


def parse(text: str) -> list[Sentence]:
    """Sentences of lines `number, rating, sentence` parted by tabs; two apostrophes stand for a quotation mark."""
    rows = (line.split("\t", 2) for line in text.splitlines())
    return [Sentence(unescape(sentence).replace("''", '"').strip(), float(rating)) for _, rating, sentence in rows]


def split(sentences: Sequence[Sentence], scored: int = SCORED, validated: int = VALIDATED) -> Split[Sentence]:
    """Draw the wordings that are scored and validated at random, always the same ones; the rest is learnt from.

    Sentences that are neither good nor bad are left out. Which review a sentence comes from the data do not say.
    """
    wordings: dict[str, Sentence] = {}
    for sentence in sentences:
        if abs(sentence.rating) >= NEUTRAL:
            key = "".join(sign for sign in sentence.text.lower() if sign.isalnum())
            wordings.setdefault(key, sentence)
    return drawn((wordings[key] for key in sorted(wordings)), scored, validated)


@cache
def reviews() -> Split[Sentence]:
    """The split of the fetched sentences."""
    with tarfile.open(cached(ARCHIVE)) as archive:
        content = archive.extractfile(_MEMBER)
        assert content is not None
        return split(parse(content.read().decode("utf-8")))


@cache
def tokenizer() -> WordPiece:
    """With the vocabulary of the package."""
    lines = cached(VOCABULARY).read_text(encoding="utf-8").split("\n")
    numbers = {piece: number for number, piece in enumerate(lines) if piece}
    assert all(sign in numbers for sign in (START, END, PAD, UNKNOWN))
    return WordPiece(numbers)


@cache
def pieces(text: str) -> Tensor:
    """Numbers (T,) of a sentence's pieces."""
    return torch.tensor(tokenizer().numbers(text))


def padded(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Numbers (B, T), padded with 0 at the end, and 1 where they are real (B, T)."""
    rows = [pieces(text) for text in texts]
    return (
        pad_sequence(rows, batch_first=True),
        pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    )


def embed(forward: Forward, texts: Sequence[str]) -> Tensor:
    """Embeddings (N, E); sentences of like length go together, so that little is padding."""
    order = sorted(range(len(texts)), key=lambda i: len(pieces(texts[i])))
    found = [
        torch.as_tensor(forward(*padded([texts[i] for i in order[start : start + BATCH]])))
        for start in range(0, len(order), BATCH)
    ]
    rows = torch.cat(found)
    embeddings = torch.empty_like(rows)
    embeddings[torch.tensor(order)] = rows
    return embeddings
