"""Human antibodies as sequences of amino acids, some of which are hidden, split three ways.

The package abstar ships 1,000 reads of B-cell receptors' variable regions as nucleotides. They are translated here, in
the one frame that holds no stop, without the primer in front.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))

from packages import fetched
from splits import Split, drawn

if TYPE_CHECKING:
    from collections.abc import Sequence

CACHE = Path(__file__).parent / "cache"
WEIGHTS, SETTINGS, VOCABULARY = "pytorch_model.bin", "config.json", "vocab.txt"
READS = "test_1k.fasta"

SCORED, VALIDATED = 100, 50
SHORTEST, LONGEST = 80, 160
"""Amino acids of a sequence; shorter ones are no whole variable region."""
HIDDEN = 0.15
"""The part of the residues that the model has to fill in, as in its training."""
IGNORED = -100
"""Target of a residue that is shown; what `cross_entropy` ignores by default."""

_PRIMER = "cgtgtctct"
_BEHIND_PRIMER = len(_PRIMER) + 2
"""Nucleotides up to the first whole codon of the antibody."""
_BASES = "TCAG"
_AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
"""The standard genetic code, codons in the order of `_BASES` (NCBI's translation table 1)."""


def cached(name: str) -> Path:
    """A file that `fetch.py` makes; raises `TaskError` if it has not run."""
    return fetched(CACHE / name, "antibodies", "the antibodies' data", "97 MB with pip")


def translated(bases: str) -> str | None:
    """Amino acids of the one frame without a stop; None if there are several such frames, or none."""
    found = []
    if bases.startswith(_PRIMER):
        bases = bases[_BEHIND_PRIMER:]
    for frame in range(3):
        codons = (bases[i : i + 3].upper() for i in range(frame, len(bases) - 2, 3))
        chain = "".join(amino_acid(codon) for codon in codons)
        if "*" not in chain and "?" not in chain:
            found.append(chain)
    return found[0] if len(found) == 1 else None


def amino_acid(codon: str) -> str:
    """The letter of a codon, `*` of a stop, `?` if a base is unknown."""
    places = [_BASES.find(base) for base in codon]
    return "?" if -1 in places else _AMINO_ACIDS[places[0] * 16 + places[1] * 4 + places[2]]


def reads(text: str) -> list[str]:
    """The sequences of a FASTA file."""
    return ["".join(entry.splitlines()[1:]) for entry in text.split(">") if entry.strip()]


@cache
def antibodies() -> Split[str]:
    """Drawn at random, always the same ones; each sequence once."""
    chains = {translated(read) for read in reads(cached(READS).read_text(encoding="utf-8"))}
    whole = sorted(chain for chain in chains if chain and SHORTEST <= len(chain) <= LONGEST)
    return drawn(whole, SCORED, VALIDATED)


@cache
def numbers() -> dict[str, int]:
    """Number of each amino acid, and of the signs in brackets."""
    words = cached(VOCABULARY).read_text(encoding="utf-8").split()
    return {word: number for number, word in enumerate(words)}


def masked(chains: Sequence[str], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Residues with some hidden (N, T), which positions are no padding (N, T), and the hidden ones (N, T).

    Of every sequence at least one residue is hidden; positions that are shown have the target `IGNORED`.
    """
    known = numbers()
    longest = max(map(len, chains)) + 2
    shown = torch.full((len(chains), longest), known["[PAD]"])
    targets = torch.full_like(shown, IGNORED)
    for row, chain in enumerate(chains):
        residues = torch.tensor([known.get(letter, known["[UNK]"]) for letter in chain])
        hidden = torch.rand(len(chain), generator=generator) < HIDDEN
        hidden[torch.randint(len(chain), (1,), generator=generator)] = True
        targets[row, 1 : len(chain) + 1] = torch.where(hidden, residues, IGNORED)
        shown[row, 1 : len(chain) + 1] = residues.masked_fill(hidden, known["[MASK]"])
        shown[row, 0], shown[row, len(chain) + 1] = known["[CLS]"], known["[SEP]"]
    return shown, (shown != known["[PAD]"]).long(), targets
