"""Synthetic tasks, each of which needs one ability: to recall, to keep track of a state, to remember over a gap.

A batch is tokens (B, T) and targets (B, T), both int64; `IGNORED` marks the positions at which nothing is asked. All
randomness comes from the generator that is handed in. Scored is the second half of the positions: in the first, a
target follows from few tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

IGNORED = -100
"""Target of a position at which nothing is asked; what `cross_entropy` ignores by default."""


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
    ability: ClassVar[str]
    """In two or three words, as in "loses long memory"."""
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

    def chance(self, length: int) -> float:
        """Accuracy of the best guess at this length by a network without the ability: any target is as likely."""
        return 1.0 / self.classes

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

    def examine(self, generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `draw`, and which answers are right, (batch, length, classes): the target alone if a task says no more."""
        tokens, targets = self.draw(generator, batch, length)
        return tokens, targets, torch.arange(self.classes) == targets[..., None]

    def easier(self) -> ProbeTask | None:
        """A form of the task for networks that cannot learn this one; None if none still means it."""
        return None

    def described(self) -> dict[str, Any]:
        """What a result says of the task, by the names of `ProbeResult`."""
        words = {"needs": self.needs, "ability": self.ability, "meaning": self.meaning}
        return {"task": self.name, "difficulty": self.difficulty, "patience": self.patience, **words}

    def facts(self) -> dict[str, Any]:
        """The task and its parameters as JSON values."""
        return {"task": self.name, **asdict(self)}


class OfSymbols:
    """A task whose inputs are symbols and one sign more, and whose targets are symbols."""

    symbols: int

    @property
    def tokens(self) -> int:
        """Symbols and the sign."""
        return self.symbols + 1

    @property
    def classes(self) -> int:
        """Symbols."""
        return self.symbols


def scored(targets: Tensor) -> Tensor:
    """Mask (B, T) of the positions that count: those of the second half, ceil(T / 2) on, that have a target."""
    late = torch.arange(targets.shape[1]) >= (targets.shape[1] + 1) // 2  # (T,)
    return (targets != IGNORED) & late


def accuracy(
    network: Callable[[Tensor], Tensor], task: ProbeTask, generator: torch.Generator, count: int, length: int
) -> float:
    """Share of the scored targets of `count` new sequences that a network, tokens to (B, T, classes), gets right."""
    tokens, targets, accepted = task.examine(generator, count, length)
    with torch.no_grad():
        predicted = network(tokens).argmax(-1)  # (B, T)
    right = accepted.gather(2, predicted[..., None])[..., 0]
    return float(right[scored(targets)].double().mean())
