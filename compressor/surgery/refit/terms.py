"""A model and the smaller one that was cut out of it, weight by weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.nn.names import full_name

Kept = Mapping[tuple[str, int], Tensor]
"""(parameter name, axis) -> boolean mask of the original's positions, True = kept."""


class Models:
    """A model, the smaller one that was cut out of it, and what was kept."""

    def __init__(self, original: nn.Module, smaller: nn.Module, kept: Kept, masks: Mapping[str, Tensor]) -> None:
        """See `compensation.refit`."""
        self.original, self.smaller, self.kept, self._masks = original, smaller, kept, masks

    def pair(self, name: str) -> tuple[Any, Any]:
        """The module of that name in both."""
        return self.original.get_submodule(name), self.smaller.get_submodule(name)

    def positions(self, name: str, axis: int) -> Tensor:
        """Indices of those of the original parameter that were kept."""
        parameter = self.original.get_parameter(name)
        mask = self.kept.get((name, axis))
        if mask is None:
            return torch.arange(parameter.size(axis), device=parameter.device)
        return mask.nonzero().flatten().to(parameter.device)

    def term(self, module: str, local: str) -> Term:
        """A weight of a module."""
        name = full_name(module, local)
        old, new = self.original.get_parameter(name), self.smaller.get_parameter(name)
        rows = old.detach()[self.positions(name, 0)].flatten(1)
        mask = self._masks.get(name)
        allowed = None if mask is None or bool(mask.all()) else mask.to(new.device).flatten(1)
        return Term(name, rows.double(), new, new.detach().flatten(1).to(torch.float64, copy=True), allowed)

    def bias(self, module: str, local: str | None) -> Bias | None:
        """A bias of a module, at the original's values: a fit's constant makes up for all that is missing since."""
        owner = self.smaller.get_submodule(module)
        parameter = None if local is None else owner._parameters.get(local)
        if parameter is None:
            return None
        name = full_name(module, str(local))
        values = self.original.get_parameter(name).detach()[self.positions(name, 0)]
        return Bias(name, parameter, values.to(torch.float64, copy=True))


@dataclass(frozen=True)
class Term:
    """One weight of a sum: W of the original, W' of the smaller model."""

    name: str
    original: Tensor
    """The rows of W that were kept (m, n), flattened, float64."""
    parameter: nn.Parameter
    """W', of m rows."""
    before: Tensor
    """W' before it is fitted (m, n'), flattened, float64."""
    allowed: Tensor | None
    """(m, n'), False: W' has to stay 0; None if it may be anything."""

    def mask(self) -> Tensor:
        """`allowed`, written out."""
        return torch.ones_like(self.before, dtype=torch.bool) if self.allowed is None else self.allowed


@dataclass(frozen=True)
class Bias:
    """The bias of the smaller model that takes a fit's constant."""

    name: str
    parameter: nn.Parameter
    before: Tensor
    """What the original has (m,), float64."""


@dataclass(frozen=True)
class Sum:
    """Rows that are the same sum of terms."""

    rows: slice
    terms: tuple[int, ...]
    bias: Bias | None
