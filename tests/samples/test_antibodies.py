"""The antibodies sample: reads to amino acids, hidden residues; with the fetched data, the original's figures too."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch

from compressor.task.loading import load

FOLDER = Path(__file__).parents[2] / "samples" / "antibodies"
sys.path.insert(0, str(FOLDER))

import sequences  # noqa: E402

needs_data = pytest.mark.skipif(
    not all((sequences.CACHE / name).is_file() for name in (sequences.WEIGHTS, sequences.READS)),
    reason="run samples/antibodies/fetch.py first",
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACDEFGHIKLMNPQRSTVWY"]


@pytest.fixture
def vocabulary(monkeypatch):
    known = {word: number for number, word in enumerate(WORDS)}
    monkeypatch.setattr(sequences, "numbers", lambda: known)
    return known


OPEN = "CTAGATGCTAAC"
"""Only its first frame holds no stop."""


@pytest.mark.parametrize(
    ("bases", "chain"),
    [
        (OPEN, "LDAN"),
        ("A" + OPEN, "LDAN"),
        ("AA" + OPEN.lower(), "LDAN"),
        ("cgtgtctct" + "ac" + OPEN, "LDAN"),
        ("CTAGATTAAGCTAAC", None),  # a stop in every frame
        ("GCTGCT", None),  # none in any
        (OPEN.replace("G", "N"), None),
    ],
)
def test_a_read_is_translated_in_its_one_frame_without_a_stop(bases, chain):
    assert sequences.translated(bases) == chain


def test_the_genetic_code_is_the_standard_one():
    codons = ["".join(bases) for bases in product("ACGT", repeat=3)]
    known = {"ATG": "M", "TGG": "W", "TTA": "L", "CTA": "L", "AGA": "R", "CGT": "R", "AGC": "S", "TCA": "S", "CAT": "H"}
    assert {codon: sequences.amino_acid(codon) for codon in known} == known
    many = {"L": 6, "R": 6, "S": 6, "I": 3, "*": 3, "M": 1, "W": 1} | dict.fromkeys("AGPTV", 4)
    two = dict.fromkeys("FYHQNKDEC", 2)
    assert Counter(map(sequences.amino_acid, codons)) == many | two


def test_reads_of_several_lines_are_joined():
    assert sequences.reads(">a\nACGT\nAC\n>b c\nGG\n") == ["ACGTAC", "GG"]


def test_hidden_residues_are_the_targets_and_shown_ones_are_not(vocabulary):
    chains = ["ACDEFGHIKLMNPQRSTVWY" * 5, "GG"]
    shown, mask, targets = sequences.masked(chains, torch.Generator().manual_seed(0))
    hidden = targets != sequences.IGNORED
    assert torch.equal(hidden, shown == vocabulary["[MASK]"])
    assert hidden.any(1).all()
    assert mask.sum(1).tolist() == [102, 4]
    restored = torch.where(hidden, targets, shown)
    assert "".join(WORDS[number] for number in restored[0, 1:101]) == chains[0]
    assert [WORDS[number] for number in restored[1, :4]] == ["[CLS]", "G", "G", "[SEP]"]


@needs_data
@pytest.mark.slow
def test_the_figures_of_the_page_are_those_of_the_sample():
    split = sequences.antibodies()
    assert [len(part) for part in (split.scored, split.validated, split.learnt)] == [100, 50, 556]
    assert len({*split.scored, *split.validated, *split.learnt}) == 706
    task = load(str(FOLDER / "task.py"))
    model = task.model()
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(25.76e6, abs=5e3)
    assert sum(weight.numel() for weight in model.bert.encoder.parameters()) == pytest.approx(25.22e6, abs=5e3)
    with torch.no_grad():
        score = task.evaluate(model)
    assert len(score.per_sample) == 1742
    assert float(score.per_sample.mean()) == pytest.approx(0.7905, abs=0.005)
