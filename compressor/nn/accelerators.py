"""What a device of PyTorch can do, found by trying it; and its random numbers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

KNOWN = ("cuda", "mps", "xpu")
"""Accelerators that PyTorch itself brings; `torch.accelerator` may find others."""
CPU = torch.device("cpu")


def accelerator() -> torch.device | None:
    """The accelerator of this machine (CUDA, Apple's mps, Intel's xpu or another that PyTorch knows), if it has one."""
    return torch.accelerator.current_accelerator(check_available=True)


def device_name(device: torch.device) -> str:
    """The name of the card, or the kind of device if it has none."""
    describe = getattr(torch.get_device_module(device), "get_device_name", None) if device.type != "cpu" else None
    return device.type if describe is None else str(describe(device))


def has_float64(device: torch.device) -> bool:
    """Whether it computes in float64; Apple's mps does not, nor do some cards of Intel."""
    try:
        return float(torch.ones(2, dtype=torch.float64, device=device).sum()) == 2.0
    except (RuntimeError, TypeError):
        return False


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device without it."""
    return torch.float64 if has_float64(device) else torch.float32


def autocasts_to_bf16(device: torch.device) -> bool:
    """Whether it is an accelerator on which autocast to bfloat16 works."""
    if device.type == "cpu" or not torch.amp.is_autocast_available(device.type):
        return False
    module = torch.get_device_module(device)
    supported = getattr(module, "is_bf16_supported", None)
    if supported is not None and not supported(including_emulation=False):
        return False
    try:
        ones = torch.ones(2, 2, device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return (ones @ ones).dtype == torch.bfloat16
    except (RuntimeError, TypeError):
        return False


def generator_on(device: torch.device) -> torch.Generator:
    """A random generator of the device; one on the CPU if it has none of its own."""
    try:
        return torch.Generator(device)
    except (RuntimeError, NotImplementedError):
        return torch.Generator()


def random_state_of(device: torch.device) -> Tensor | None:
    """The state of an accelerator's own generator, on the CPU; None for the CPU."""
    if device.type == "cpu":
        return None
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state_of(device: torch.device, state: Tensor) -> None:
    """Let an accelerator draw on from a state."""
    torch.get_device_module(device).set_rng_state(state, device)


@contextmanager
def seeded_on(device: torch.device, seed: int) -> Iterator[None]:
    """Seed an accelerator's own generator, and put it back afterwards; the CPU's is left alone."""
    before = random_state_of(device)
    if before is None:
        yield
        return
    with _selected(device):
        torch.get_device_module(device).manual_seed(seed)
    try:
        yield
    finally:
        set_random_state_of(device, before)


@contextmanager
def _selected(device: torch.device) -> Iterator[None]:
    """Make one of several devices the current one, where there may be several."""
    module: Any = torch.get_device_module(device)
    if device.index is None or not hasattr(module, "device"):
        yield
        return
    with module.device(device):
        yield
