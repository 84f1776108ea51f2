"""Names of modules in a model, and which modules hold a parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def full_name(module: str, local: str) -> str:
    """The name that something called `local` inside of a module has in the whole model."""
    return f"{module}.{local}" if module else local


def in_words(module: str) -> str:
    """How messages call a module."""
    return f"`{module}`" if module else "the model itself"


def with_holders(name: str) -> tuple[str, ...]:
    """A name and those of the modules that hold it: `a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    return tuple(".".join(parts[:end]) for end in range(len(parts), 0, -1))


def parameter_owners(model: nn.Module) -> dict[int, list[str]]:
    """Identity of a parameter -> the names of the modules that hold it."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    return owners
