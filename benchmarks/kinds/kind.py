"""One kind of model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.task.signature import Call
from compressor.task.unlabelled import UnlabelledTask

Example = Callable[[int, int], Any]


@dataclass(frozen=True)
class Kind:
    """A model, and how it is called."""

    name: str
    model: Callable[[], nn.Module]
    example: Example
    """(batch, length) -> arguments of `forward`."""
    length: int = 7
    min_length: int = 1
    max_length: int = 12
    causal: bool = False
    """May run as a step."""


class KindTask(UnlabelledTask):
    """A task with random inputs: fidelity to the model itself."""

    def __init__(self, kind: Kind) -> None:
        """Of a kind."""
        self.kind = kind
        self.length, self.min_length, self.max_length = kind.length, kind.min_length, kind.max_length

    def model(self) -> nn.Module:
        """The same weights every time."""
        torch.manual_seed(0)
        return self.kind.model().eval()

    def example(self, batch: int, length: int) -> Any:
        """Random inputs."""
        return self.kind.example(batch, length)


def features(*sizes: int) -> Example:
    """(B, T, *sizes)."""
    return lambda batch, length: (torch.randn(batch, length, *sizes),)


def channels(*sizes: int) -> Example:
    """(B, *sizes, T)."""
    return lambda batch, length: (torch.randn(batch, *sizes, length),)


def image(size: int = 16, planes: int = 3) -> Example:
    """(B, planes, size, size): without a time axis."""
    return lambda batch, length: (torch.randn(batch, planes, size, size),)


def tokens(vocabulary: int = 50, **more: Callable[[Tensor], Tensor]) -> Example:
    """`input_ids` (B, T) by name, and what is made of them."""

    def example(batch: int, length: int) -> Call:
        ids = torch.randint(3, vocabulary, (batch, length))
        return Call(input_ids=ids, **{name: make(ids) for name, make in more.items()})

    return example
