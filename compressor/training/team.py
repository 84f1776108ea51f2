"""Processes that train one model together: each computes its share of a step's batches, all take the same step.

What the numbers follow from is `accumulate`, the batches of a step, and not how many processes share them: a sum over
the batches of a step is the same sum in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

T = TypeVar("T")


class Team(Protocol):
    """The processes, seen by one of them."""

    rank: int
    """Which one this is; 0 leads."""
    size: int

    def agreed(self, make: Callable[[], T]) -> T:
        """What the leader makes; the others wait for it."""

    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Make each gradient, and the loss, the sum of those of all processes; gives the loss.

        A parameter that has a gradient in one process has one in all of them afterwards.
        """


class Alone:
    """One process."""

    rank = 0
    size = 1

    def agreed(self, make: Callable[[], T]) -> T:
        """What this process makes."""
        return make()

    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """The sum of one."""
        return loss


ALONE = Alone()


def shared_sums(
    parameters: Sequence[nn.Parameter], loss: Tensor, largest: Callable[[Tensor], None], total: Callable[[Tensor], None]
) -> Tensor:
    """`Team.add_up` by two reductions over all processes, in place: the largest of each element, and the sum.

    Args:
        parameters: In one order in all processes; their gradients are dense.
        loss: A scalar.
        largest: Reduces a tensor of integers.
        total: Reduces a flat tensor of one floating type.
    """
    import torch

    present = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
    present = present.to(loss.device)
    largest(present)
    used = [parameter for parameter, one in zip(parameters, present.tolist(), strict=True) if one]
    for dtype in sorted({parameter.dtype for parameter in used}, key=str):
        of_type = [parameter for parameter in used if parameter.dtype == dtype]
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in of_type]
        flat = torch.cat([grad.flatten() for grad in grads])
        total(flat)
        parts = flat.split([grad.numel() for grad in grads])
        for parameter, part in zip(of_type, parts, strict=True):
            parameter.grad = part.view_as(parameter)
    summed = loss.detach().reshape(1).clone()
    total(summed)
    return summed[0]
