"""Text to the numbers of word pieces, as BERT's uncased models read it (Devlin et al., arXiv 1810.04805)."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNKNOWN, START, END, PAD = "[UNK]", "[CLS]", "[SEP]", "[PAD]"
LONGEST_WORD = 100
"""A word of more characters is unknown."""
LONGEST = 256
"""Pieces of a sentence that are read, the first and the last sign included."""

_IDEOGRAPHS = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


class WordPiece:
    """The vocabulary and how a text is cut into its pieces."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        """`vocabulary`: piece -> its number; pieces inside a word start with `##`."""
        self._numbers = vocabulary

    def numbers(self, text: str) -> list[int]:
        """The pieces' numbers with the start and the end sign, at most `LONGEST`."""
        pieces = [piece for word in words(text) for piece in self.cut(word)]
        return [self._numbers[piece] for piece in (START, *pieces[: LONGEST - 2], END)]

    def cut(self, word: str) -> list[str]:
        """The longest piece that the word starts with, then the longest that the rest starts with, and so on.

        A word that cannot be cut like this to its end is unknown as a whole.
        """
        if len(word) > LONGEST_WORD:
            return [UNKNOWN]
        pieces: list[str] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self._numbers), None)
            if end is None:
                return [UNKNOWN]
            pieces.append(prefix + word[start:end])
            start = end
        return pieces


def words(text: str) -> list[str]:
    """Lower-case words without accents; every punctuation mark and every Chinese character is a word of its own."""
    lower = unicodedata.normalize("NFD", "".join(_cleaned(text)).lower())
    spaced = "".join(f" {sign} " if _is_punctuation(sign) else sign for sign in lower if not _is_accent(sign))
    return spaced.split()


def _cleaned(text: str) -> Iterator[str]:
    """Without control characters, any space a plain one, and spaces around ideographs."""
    for sign in text:
        if sign in "\t\n\r" or unicodedata.category(sign) == "Zs":
            yield " "
        elif sign != "\N{REPLACEMENT CHARACTER}" and unicodedata.category(sign) not in {"Cc", "Cf", "Co"}:
            yield f" {sign} " if any(low <= ord(sign) <= high for low, high in _IDEOGRAPHS) else sign


def _is_accent(sign: str) -> bool:
    return unicodedata.category(sign) == "Mn"


def _is_punctuation(sign: str) -> bool:
    """ASCII's signs that are no letter, digit or space all count, also `$`, `+` and the like."""
    return ("!" <= sign <= "~" and not sign.isalnum()) or unicodedata.category(sign).startswith("P")
