"""The synthetic task of in-context language learning: strings of an automaton that is new in each sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.probing.tasks import IGNORED, OfSymbols, ProbeTask


@dataclass(frozen=True)
class InContextLanguage(OfSymbols, ProbeTask):
    """Strings of one random automaton with a separator between; asked at every position is a symbol that may follow.

    Each sequence has an automaton of its own: from every state `1..edges` symbols lead to as many different other
    states. Strings begin in the first state and end after any position with probability 1 / `span`. Trained on the
    symbol that does follow, scored by whether the answer is one that may (valid-next-symbol accuracy). Ends of strings
    are not asked for.

    After ICLL (arXiv 2401.12973, section 3): its automata, smaller, and not minimised.
    """

    length: int = 48
    states: int = 4
    symbols: int = 6
    """The difficulty, with the number of states."""
    edges: int = 2
    span: float = 8.0
    """Mean length of a string."""
    patience: int = 2

    name: ClassVar[str] = "in-context language (random automaton)"
    needs: ClassVar[str] = "find the rules of a sequence in the sequence itself, and go on by them"
    ability: ClassVar[str] = "in-context learning"
    meaning: ClassVar[str] = (
        "data whose rules are new in each sequence and have to be taken from it (a user's own habits, a device's own "
        "protocol, a pattern that comes again with other symbols)"
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 1 <= self.edges <= min(self.states - 1, self.symbols) or not self.span > 1:
            raise UsageError(
                f"no automaton of {self.states} states with up to {self.edges} of {self.symbols} symbols from each, "
                f"strings of {self.span} on average",
                hint="edges from 1 to the symbols and to one less than the states, strings longer than 1",
            )

    @property
    def difficulty(self) -> str:
        """`4 states, 6 symbols`."""
        return f"{self.states} states, {self.symbols} symbols"

    def chance(self, length: int) -> float:
        """Any symbol: the mean number that may follow over the number of symbols."""
        return (1 + self.edges) / 2 / self.symbols

    def draw(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """See `ProbeTask`."""
        return self.examine(generator, batch, length)[:2]

    def examine(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Symbols 0..symbols - 1 and the separator `symbols`; accepted is what the automaton allows next."""
        if length < 1:
            raise UsageError(f"strings of {length} positions", hint="1 or more")
        successors = self.automata(generator, batch)  # (B, states, symbols)
        rows, state = torch.arange(batch), torch.zeros(batch, dtype=torch.int64)
        tokens = torch.full((batch,), self.symbols)
        shown, targets, accepted = [], [], []
        for _ in range(length):
            allowed = successors[rows, state] >= 0  # (B, symbols)
            following = torch.multinomial(allowed.float(), 1, generator=generator)[:, 0]
            ends = (torch.rand(batch, generator=generator) < 1.0 / self.span) & (tokens != self.symbols)
            shown.append(tokens)
            targets.append(torch.where(ends, IGNORED, following))
            accepted.append(allowed)
            state = torch.where(ends, 0, successors[rows, state, following])
            tokens = torch.where(ends, self.symbols, following)
        return torch.stack(shown, 1), torch.stack(targets, 1), torch.stack(accepted, 1)

    def automata(self, generator: torch.Generator, batch: int) -> Tensor:
        """(batch, states, symbols): the state that a symbol leads to, -1 if it may not follow."""
        shape = (batch, self.states)
        degrees = torch.randint(1, self.edges + 1, shape, generator=generator)
        labels = torch.rand(*shape, self.symbols, generator=generator).argsort(-1)[..., : self.edges]
        others = torch.rand(*shape, self.states - 1, generator=generator).argsort(-1)[..., : self.edges] + 1
        ends = (torch.arange(self.states)[:, None] + others) % self.states  # never the state itself
        ends = torch.where(torch.arange(self.edges) < degrees[..., None], ends, -1)
        return torch.full((*shape, self.symbols), -1).scatter(-1, labels, ends)
