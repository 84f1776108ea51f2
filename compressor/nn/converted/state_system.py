"""What a linear state-space layer passes its channels through: a linear system each, sampled with steps of dt."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.factory import FactoryOptions

SHORTEST_STEP, LONGEST_STEP = 0.01, 1.0
"""dt at the start, from slow channels to fast ones: what came in fades to 1/e within about 2 / dt positions."""


class StateSystem(nn.Module, ABC):
    r"""Of P channels :math:`\dot s = A s + B u,\ y = C s + D u`; the classes say what A is.

    `log_step` (P,) is the logarithm of dt in steps of training, `skip` (P,) is D. A `scale` is the length of a step in
    steps of training.
    """

    def __init__(self, channels: int, factory: FactoryOptions) -> None:
        """With dt spread over the channels, evenly in its logarithm, and D = 1."""
        super().__init__()
        steps = torch.linspace(math.log(SHORTEST_STEP), math.log(LONGEST_STEP), channels)
        self.log_step = nn.Parameter(steps.to(**factory))
        self.skip = nn.Parameter(torch.ones(channels, **factory))

    @abstractmethod
    def initial_states(self) -> list[tuple[str, Tensor]]:
        """Name and value (1, P, ...) before the first position, for each part of s."""

    @abstractmethod
    def sampled(self, scale: float) -> tuple[Tensor, ...]:
        """What a step needs of A and B, by the bilinear rule."""

    @abstractmethod
    def advance(
        self, u: Tensor, states: Sequence[Tensor], sampled: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One position: u (B, P) to C s (B, P), and the new s, with what `sampled` gave."""

    @abstractmethod
    def pulse_response(self, length: int, scale: float) -> Tensor:
        """C A^i B for i < length, of A and B sampled: (P, T)."""

    @abstractmethod
    def restart(self, generator: torch.Generator) -> None:
        """Give C random values, in place."""

    def kernel(self, length: int, scale: float) -> Tensor:
        """The answer to a pulse (P, T), D included."""
        answer = self.pulse_response(length, scale)
        at_once = torch.arange(length, device=answer.device) == 0
        return answer + self.skip[:, None] * at_once.to(answer.dtype)

    def _steps(self, scale: float) -> Tensor:
        """Lengths dt (P,) of a step."""
        return scale * torch.exp(self.log_step)
