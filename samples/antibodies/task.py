"""Which amino acids are hidden? A third-party Transformer of eight layers, on antibodies; run `fetch.py` first.

The model is AntiBERTy (Ruffolo, Gray and Sulam, arXiv 2112.07782) from the package antiberty 0.1.3, in the class of the
package transformers that its layers come from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from sequences import IGNORED, LONGEST, SETTINGS, WEIGHTS, antibodies, cached, masked, numbers
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from compressor import Evaluation, Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compressor.task.contract import Forward

BATCH = 16
_OTHER_HEADS = ("cls.species.*", "cls.chain.*", "cls.graft.*", "bert.pooler.*")
"""Parts of the checkpoint that do not name residues."""


class HiddenResidues(Task):
    """The part of hidden residues that the model names right."""

    metric = "accuracy at hidden residues"
    length, min_length, max_length = 120, 2, LONGEST + 2

    def model(self) -> nn.Module:
        config = BertConfig.from_dict(json.loads(cached(SETTINGS).read_text(encoding="utf-8")))
        return load_weights(BertForMaskedLM(config), cached(WEIGHTS), ignore=_OTHER_HEADS)

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        """Random residues; sequences of several lengths."""
        known = numbers()
        lengths = torch.randint(2, length + 1, (batch, 1))
        lengths[0] = length
        mask = (torch.arange(length) < lengths).long()
        residues = torch.randint(known["A"], known["Y"] + 1, (batch, length))
        return {"input_ids": torch.where(mask > 0, residues, known["[PAD]"]), "attention_mask": mask}

    def batches(self, generator: torch.Generator) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Learnt sequences, other residues hidden each time."""
        chains = antibodies().learnt
        order = torch.randperm(len(chains), generator=generator).tolist()
        for start in range(0, len(order), BATCH):
            shown, mask, targets = masked([chains[i] for i in order[start : start + BATCH]], generator)
            yield {"input_ids": shown, "attention_mask": mask}, targets

    def loss(self, outputs: Any, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED)

    def evaluate(self, forward: Forward, limit: int | None = None) -> Evaluation:
        """On 100 sequences; residues of one sequence are not independent."""
        return score(forward, antibodies().scored[:limit])

    def validate(self, forward: Forward) -> Evaluation:
        return score(forward, antibodies().validated)


def score(forward: Any, chains: Sequence[str]) -> Evaluation:
    """One score for each hidden residue, grouped by sequence; the same residues are hidden for every model."""
    generator = torch.Generator().manual_seed(0)
    right, groups = [], []
    for start in range(0, len(chains), BATCH):
        shown, mask, targets = masked(chains[start : start + BATCH], generator)
        hidden = targets != IGNORED
        named = forward(input_ids=shown, attention_mask=mask).logits.argmax(-1)
        right.append((named == targets)[hidden].float())
        groups.append(hidden.nonzero()[:, 0] + start)
    return Evaluation(per_sample=torch.cat(right), groups=torch.cat(groups))
