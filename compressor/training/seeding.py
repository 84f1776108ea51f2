"""Random numbers of a training run, all of them from one generator."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from compressor.nn.accelerators import generator_on, seeded_on

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, from which dropout draws, and put them back afterwards."""
    with seeded_from(_draw_seed(generator), device):
        yield


@contextmanager
def seeded_from(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators within the block."""
    with torch.random.fork_rng(devices=[]), seeded_on(device, seed):
        torch.default_generator.manual_seed(seed)
        yield


def device_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device (on the CPU if the device has none), seeded from another one."""
    return generator_on(device).manual_seed(_draw_seed(generator))


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
