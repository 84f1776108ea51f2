"""The synthetic task of remembering over a gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.probing.tasks import IGNORED, OfSymbols, ProbeTask


@dataclass(frozen=True)
class LongGap(OfSymbols, ProbeTask):
    """The first token is to be remembered: whenever the query token comes, and at the end, it is asked for.

    Between them lie distractors from the same symbols. Queries come with probability `queries` at each position, so
    that training sees short gaps as well as long ones.
    """

    length: int = 32
    symbols: int = 8
    """What can be remembered, and what distracts: the difficulty, with the length."""
    queries: float = 0.2
    """Share of the positions that ask."""

    name: ClassVar[str] = "long gap with distractors"
    needs: ClassVar[str] = "keep what was shown at the start while other things pass"
    ability: ClassVar[str] = "long memory"
    meaning: ClassVar[str] = (
        "data in which something early matters much later, with unrelated things between (a heading, a setting, the "
        "speaker, the first reading)"
    )

    @property
    def difficulty(self) -> str:
        """`8 symbols`."""
        return f"{self.symbols} symbols"

    def draw(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Symbols 0..symbols - 1 and the query `symbols`; the target of a query is the first token."""
        if length < 2:
            raise UsageError(f"a gap in {length} positions", hint="2 or more")
        symbols = torch.randint(self.symbols, (batch, length), generator=generator)  # (B, T)
        asks = torch.rand(batch, length, generator=generator) < self.queries
        asks[:, 0], asks[:, -1] = False, True
        first = symbols[:, :1].expand(-1, length)
        return symbols.masked_fill(asks, self.symbols), first.masked_fill(~asks, IGNORED)
