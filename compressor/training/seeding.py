"""Random numbers of a training run, all of them from one generator."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, from which dropout draws, and put them back afterwards."""
    cuda = device.type == "cuda"
    seed = _draw_seed(generator)
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def device_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device, seeded from another one."""
    return torch.Generator(device).manual_seed(_draw_seed(generator))


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
