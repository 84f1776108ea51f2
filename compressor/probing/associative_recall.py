"""The synthetic task of looking up what came with a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.probing.tasks import IGNORED, ProbeTask


@dataclass(frozen=True)
class AssociativeRecall(ProbeTask):
    """Pairs of a key and a value, then keys: at each of these, the value that came with it.

    As in multi-query associative recall (Arora et al., "Zoology", arXiv 2312.04927, section 3.1): with p = floor(T / 3)
    pairs, k_1 v_1 ... k_p v_p and then T - 2p of the keys, drawn with replacement. Keys do not repeat among the pairs
    and values neither, so whoever knows the values but not which belongs to which is right with probability 1 / p.
    """

    length: int = 12
    symbols: int = 16
    """Number of keys, and of values: the difficulty, with the number of pairs."""

    name: ClassVar[str] = "associative recall"
    needs: ClassVar[str] = "look up what came with a key earlier in the sequence"
    ability: ClassVar[str] = "associative recall"
    meaning: ClassVar[str] = (
        "data in which a later position asks for something that was said once before (a name, an identifier, the value "
        "that belongs to a key, a motif that comes again)"
    )

    @property
    def difficulty(self) -> str:
        """`6 pairs of 16 symbols`."""
        return f"{self.pairs(self.length)} pairs of {self.symbols} symbols"

    @property
    def tokens(self) -> int:
        """Keys and values."""
        return 2 * self.symbols

    @property
    def classes(self) -> int:
        """Values."""
        return self.symbols

    def chance(self, length: int) -> float:
        """1 / p: any of the values that were shown."""
        return 1.0 / self.pairs(length)

    def easier(self) -> AssociativeRecall | None:
        """Two pairs of four symbols, which recurrent layers learn, with patience."""
        easier = AssociativeRecall(length=6, symbols=4, patience=3)
        return None if self == easier else easier

    def pairs(self, length: int) -> int:
        """How many pairs p a sequence of this length has.

        Raises:
            UsageError: None, or more than there are symbols.
        """
        pairs = length // 3
        if not 1 <= pairs <= self.symbols:
            raise UsageError(
                f"associative recall at length {length} would take {pairs} pairs of {self.symbols} symbols",
                hint="3 to 3 x symbols positions",
            )
        return pairs

    def draw(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Tokens: keys are 0..symbols - 1, values follow them; targets: values from 0."""
        pairs = self.pairs(length)
        asked = length - 2 * pairs
        keys = torch.rand(batch, self.symbols, generator=generator).argsort(1)[:, :pairs]  # (B, p)
        values = torch.rand(batch, self.symbols, generator=generator).argsort(1)[:, :pairs]  # (B, p)
        chosen = torch.randint(pairs, (batch, asked), generator=generator)  # (B, T - 2p)
        shown = torch.stack((keys, self.symbols + values), 2).flatten(1)  # (B, 2p)
        silent = torch.full((batch, 2 * pairs), IGNORED)
        return torch.cat((shown, keys.gather(1, chosen)), 1), torch.cat((silent, values.gather(1, chosen)), 1)
