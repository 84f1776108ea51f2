"""The synthetic task of tracking the hidden state of a grammar, with silence or forbidden symbols in between."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.probing.tasks import OfSymbols, ProbeTask

Regime = Literal["clean", "gaps", "distractors"]
_TRIES = 1000


@dataclass(frozen=True)
class Selectivity(OfSymbols, ProbeTask):
    """A walk through a random grammar; asked at every position is the hidden state that it is in.

    Each symbol stands for `depth` hidden states. From a state a symbol is allowed with probability `density`, and then
    leads to one of its states, always the same; so the symbols seen so far tell the state. With `gaps`, a position is
    silent with probability `pause`; with `distractors`, it has a symbol instead that the grammar forbids there. Neither
    changes the state.

    After SelectivBench (arXiv 2601.12598): its tasks 1 to 3, smaller, with a deterministic successor for each symbol.
    """

    length: int = 24
    symbols: int = 4
    depth: int = 3
    """Hidden states of each symbol: the difficulty, with the number of symbols."""
    density: float = 0.6
    regime: Regime = "clean"
    pause: float = 0.3
    """Share of the positions that are no step of the walk, except with `clean`."""
    grammar: int = 0
    """Seed of the grammar."""

    name: ClassVar[str] = "selectivity (random grammar)"
    needs: ClassVar[str] = "follow a hidden state by the symbols that are allowed, and pass over those that are not"
    ability: ClassVar[str] = "selectivity"
    meaning: ClassVar[str] = (
        "data in which only some of the inputs count, and what they are tells which (events in noise, commands among "
        "chatter, a protocol with stray messages)"
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.symbols < 2 or self.depth < 1 or not 0 < self.density < 1 or not 0 <= self.pause < 1:
            raise UsageError(
                f"no grammar of {self.symbols} symbols with {self.depth} states each, density {self.density} and "
                f"pauses {self.pause}",
                hint="2 symbols or more, 1 state or more, a density between 0 and 1, pauses from 0 to below 1",
            )

    @property
    def difficulty(self) -> str:
        """`4 symbols of 3 states, distractors`."""
        return f"{self.symbols} symbols of {self.depth} states, {self.regime}"

    @property
    def classes(self) -> int:
        """Hidden states."""
        return self.symbols * self.depth

    def chance(self, length: int) -> float:
        """Who knows the last symbol of the walk, but not which of its states it is in."""
        return 1.0 / self.depth

    @cached_property
    def successors(self) -> Tensor:
        """(states, symbols): the state after a symbol, -1 if it is forbidden.

        Every state allows a symbol and forbids one, and every state can be reached from every other.

        Raises:
            UsageError: No such grammar was drawn.
        """
        random = torch.Generator().manual_seed(self.grammar)
        for _ in range(_TRIES):
            inner = torch.randint(self.depth, (self.classes, self.symbols), generator=random)
            allowed = torch.rand(self.classes, self.symbols, generator=random) < self.density
            successors = (torch.arange(self.symbols) * self.depth + inner).masked_fill(~allowed, -1)
            if bool((allowed.any(1) & ~allowed.all(1)).all()) and _is_connected(successors):
                return successors
        raise UsageError(
            f"no connected grammar of {self.symbols} symbols at density {self.density}",
            hint="more symbols, or another density or `grammar`",
        )

    def draw(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Symbols 0..symbols - 1 and silence `symbols`; the target is the state, 0 before the first step."""
        if length < 1:
            raise UsageError(f"a walk of {length} positions", hint="1 or more")
        state = torch.zeros(batch, dtype=torch.int64)
        tokens, states = [], []
        for position in range(length):
            row = self.successors[state]  # (B, symbols)
            allowed = torch.multinomial((row >= 0).float(), 1, generator=generator)[:, 0]
            forbidden = torch.multinomial((row < 0).float(), 1, generator=generator)[:, 0]
            pauses = torch.rand(batch, generator=generator) < (
                0.0 if self.regime == "clean" or not position else self.pause
            )
            other = forbidden if self.regime == "distractors" else torch.full_like(forbidden, self.symbols)
            tokens.append(torch.where(pauses, other, allowed))
            state = torch.where(pauses, state, row.gather(1, allowed[:, None])[:, 0])
            states.append(state)
        return torch.stack(tokens, 1), torch.stack(states, 1)


def _is_connected(successors: Tensor) -> bool:
    """Whether each state leads to each other one."""
    count = len(successors)
    reach = torch.eye(count, dtype=torch.bool)
    for state in range(count):
        reach[state, successors[state][successors[state] >= 0]] = True
    for _ in range(count.bit_length()):
        reach = (reach.float() @ reach.float()) > 0
    return bool(reach.all())
