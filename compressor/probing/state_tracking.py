"""The synthetic task of keeping a state that every step changes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.probing.tasks import ProbeTask

_ELEMENTS = tuple(permutations(range(3)))
"""S3: the element i takes place k to place _ELEMENTS[i][k]."""
_MOVES = {2: (_ELEMENTS.index((1, 0, 2)), _ELEMENTS.index((1, 2, 0))), 6: tuple(range(6))}
"""Number of moves -> the elements that they stand for: a swap and a rotation, which generate S3, or all of it."""


@dataclass(frozen=True)
class StateTracking(ProbeTask):
    """A running product in the group S3: each token is a move, the target at each position is where all led so far.

    The state s_t = m_t s_{t-1} with s_0 = 1 takes six values. S3 is the smallest group whose elements do not commute,
    so the order of the moves counts. Word problems of groups as tests of state tracking: Liu et al., arXiv 2210.10749;
    Merrill, Petty and Sabharwal, arXiv 2404.08819.
    """

    length: int = 16
    moves: int = 2
    """2, a swap and a rotation, or 6, all elements. After a few of them, each element is as likely as the others."""

    name: ClassVar[str] = "state tracking (S3)"
    needs: ClassVar[str] = "keep a state that every step changes, the order of the steps counting"
    ability: ClassVar[str] = "state tracking"
    meaning: ClassVar[str] = (
        "data in which each step changes a state and the order decides (switches, moves, brackets, the phase of a "
        "machine or of a game)"
    )

    def __post_init__(self) -> None:
        """Refuse another number of moves."""
        if self.moves not in _MOVES:
            raise UsageError(f"S3 has no set of {self.moves} moves here", hint="2 or 6")

    @property
    def difficulty(self) -> str:
        """`2 moves`."""
        return f"{self.moves} moves"

    @property
    def tokens(self) -> int:
        """Moves."""
        return self.moves

    @property
    def classes(self) -> int:
        """Elements of S3."""
        return len(_ELEMENTS)

    def draw(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Moves, uniform and independent, and the running products."""
        if length < 1:
            raise UsageError(f"a sequence of {length} moves", hint="1 or more")
        tokens = torch.randint(self.moves, (batch, length), generator=generator)  # (B, T)
        elements = torch.tensor(_MOVES[self.moves])[tokens]  # (B, T)
        products = torch.tensor([[_ELEMENTS.index(_after(a, b)) for b in _ELEMENTS] for a in _ELEMENTS])  # (6, 6)
        state = torch.full((batch,), _ELEMENTS.index((0, 1, 2)))  # (B,)
        states = []
        for step in elements.unbind(1):
            state = products[step, state]
            states.append(state)
        return tokens, torch.stack(states, 1)


def _after(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that does b first and then a."""
    return tuple(a[place] for place in b)
