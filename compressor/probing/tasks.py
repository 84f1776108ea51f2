"""Synthetic tasks, each of which needs one ability: to recall, to keep track of a state, to remember over a gap.

A batch is tokens (B, T) and targets (B, T), both int64; `IGNORED` marks the positions at which nothing is asked. All
randomness comes from the generator that is handed in. Scored is the second half of the positions: in the first, a
target follows from few tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

IGNORED = -100
"""Target of a position at which nothing is asked; what `cross_entropy` ignores by default."""

_ELEMENTS = tuple(permutations(range(3)))
"""S3: the element i takes place k to place _ELEMENTS[i][k]."""
_MOVES = {2: (_ELEMENTS.index((1, 0, 2)), _ELEMENTS.index((1, 2, 0))), 6: tuple(range(6))}
"""Number of moves -> the elements that they stand for: a swap and a rotation, which generate S3, or all of it."""


@dataclass(frozen=True)
class ProbeTask(ABC):
    """What is drawn, and what a network that has not learned it reaches."""

    length: int
    """Positions T of a sequence in training."""
    patience: int = 1
    """So many times the usual number of steps are given to it."""

    name: ClassVar[str]
    """As tables show it."""
    needs: ClassVar[str]
    """What the ability is, after "to"."""
    meaning: ClassVar[str]
    """Which data need it."""

    @property
    @abstractmethod
    def difficulty(self) -> str:
        """Its parameters in a few words."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Size of the vocabulary of the inputs."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Number of different targets."""

    @abstractmethod
    def chance(self, length: int) -> float:
        """Accuracy of the best guess at this length by a network without the ability."""

    @abstractmethod
    def draw(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, (batch, length) each.

        Args:
            generator: On the CPU.
            batch: B >= 1.
            length: T; a length other than that of training asks for more of the same.

        Raises:
            UsageError: There is no sequence of that length.
        """

    def easier(self) -> ProbeTask | None:
        """A form of the task for networks that cannot learn this one; None where there is none that still means it."""
        return None

    def facts(self) -> dict[str, Any]:
        """The task and its parameters as JSON values."""
        return {"task": self.name, **asdict(self)}


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
        found = AssociativeRecall(length=6, symbols=4, patience=3)
        return None if self == found else found

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


@dataclass(frozen=True)
class StateTracking(ProbeTask):
    """A running product in the group S3: each token is a move, the target at each position is where all led so far.

    The state s_t = m_t s_{t-1} with s_0 = 1 takes six values. S3 is the smallest group whose elements do not commute,
    so the order of the moves counts. Word problems of groups as tests of state tracking: Liu et al., arXiv 2210.10749;
    Merrill, Petty and Sabharwal, arXiv 2404.08819.
    """

    length: int = 16
    moves: int = 2
    """2, a swap and a rotation, or 6, all elements."""

    name: ClassVar[str] = "state tracking (S3)"
    needs: ClassVar[str] = "keep a state that every step changes, the order of the steps counting"
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

    def chance(self, length: int) -> float:
        """1 / 6: after a few moves, each element is as likely as the others."""
        return 1.0 / len(_ELEMENTS)

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


@dataclass(frozen=True)
class LongGap(ProbeTask):
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
    meaning: ClassVar[str] = (
        "data in which something early matters much later, with unrelated things between (a heading, a setting, the "
        "speaker, the first reading)"
    )

    @property
    def difficulty(self) -> str:
        """`8 symbols`."""
        return f"{self.symbols} symbols"

    @property
    def tokens(self) -> int:
        """Symbols and the query."""
        return self.symbols + 1

    @property
    def classes(self) -> int:
        """Symbols."""
        return self.symbols

    def chance(self, length: int) -> float:
        """1 / symbols."""
        return 1.0 / self.symbols

    def draw(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Symbols 0..symbols - 1 and the query `symbols`; the target of a query is the first token."""
        if length < 2:
            raise UsageError(f"a gap in {length} positions", hint="2 or more")
        symbols = torch.randint(self.symbols, (batch, length), generator=generator)  # (B, T)
        asks = torch.rand(batch, length, generator=generator) < self.queries
        asks[:, 0], asks[:, -1] = False, True
        first = symbols[:, :1].expand(-1, length)
        return symbols.masked_fill(asks, self.symbols), first.masked_fill(~asks, IGNORED)


def scored(targets: Tensor) -> Tensor:
    """Mask (B, T) of the positions that count: those of the second half, ceil(T / 2) on, that have a target."""
    late = torch.arange(targets.shape[1]) >= (targets.shape[1] + 1) // 2  # (T,)
    return (targets != IGNORED) & late


def accuracy(
    network: Callable[[Tensor], Tensor], task: ProbeTask, generator: torch.Generator, count: int, length: int
) -> float:
    """Share of the scored targets of `count` new sequences that a network, tokens to (B, T, classes), gets right."""
    tokens, targets = task.draw(generator, count, length)
    with torch.no_grad():
        found = network(tokens).argmax(-1)  # (B, T)
    counts = scored(targets)
    return float((found == targets)[counts].double().mean())


def _after(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that does b first and then a."""
    return tuple(a[place] for place in b)
