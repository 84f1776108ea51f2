"""The state of every random generator that a task may draw from without saying so."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compressor.nn.accelerators import random_state_of, set_random_state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_TORCH, _DEVICE = "random.torch", "random.device"


def random_state(device: torch.device) -> tuple[dict[str, Tensor], Any]:
    """The generators of torch as tensors; those of Python and NumPy as what JSON can hold."""
    tensors = {_TORCH: torch.get_rng_state()}
    if (own := random_state_of(device)) is not None:
        tensors[_DEVICE] = own
    version, state, following = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)  # what a task may use
    return tensors, {"python": [version, list(state), following], "numpy": [name, np.asarray(keys).tolist(), *rest]}


def set_random_state(tensors: Mapping[str, Tensor], others: Any, device: torch.device) -> None:
    """Go on drawing where `random_state` was called."""
    torch.set_rng_state(tensors[_TORCH])
    if _DEVICE in tensors:
        set_random_state_of(device, tensors[_DEVICE])
    version, state, following = others["python"]
    random.setstate((version, tuple(state), following))
    name, keys, *rest = others["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))


@contextmanager
def unchanged_random_state(device: torch.device) -> Iterator[None]:
    """What is drawn inside is of no consequence to what follows, from whichever generator and however often."""
    tensors, others = random_state(device)
    try:
        yield
    finally:
        set_random_state(tensors, others, device)


@contextmanager
def seeded_everywhere(seed: int) -> Iterator[None]:
    """Draw the same inside whatever was drawn before, from the generators of torch, Python and NumPy on the CPU."""
    with unchanged_random_state(torch.device("cpu")):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
