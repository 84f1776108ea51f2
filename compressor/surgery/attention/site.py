"""Where the heads of one multi-head attention lie in its weights, whatever the module.

A **site** says it for `nn.MultiheadAttention` with one packed weight or three, for `CompactMultiheadAttention`, and for
a third-party module (see `AttentionParts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.nn.attention.parts import AttentionParts

Kind = Literal["multihead", "compact", "declared"]


@dataclass(frozen=True)
class Projection:
    """The share of all heads in one of the four maps."""

    weight: str
    """Name of the parameter (rows, columns)."""
    bias: str | None
    """Name of the parameter that is added, None without."""
    axis: Literal[0, 1]
    """Axis of the weight along which the heads lie: rows for queries, keys and values, columns for the output."""
    start: int
    """First position along that axis."""
    bias_start: int
    """First position of the bias; that of the output belongs to no head."""
    heads: int
    """h."""
    width: int
    """Positions of one head."""

    @property
    def stop(self) -> int:
        """Behind the last position."""
        return self.start + self.heads * self.width

    @classmethod
    def of_rows(cls, path: str, layer: Any, heads: int, width: int, start: int = 0) -> Projection:
        """Of queries, keys or values: the rows of a Linear layer called `path`, from `start` on."""
        bias = None if layer.bias is None else f"{path}.bias"
        return cls(f"{path}.weight", bias, 0, start, start, heads, width)

    @classmethod
    def of_columns(cls, path: str, layer: nn.Linear, heads: int, width: int) -> Projection:
        """Of the output: all columns of a Linear layer called `path`."""
        return cls(f"{path}.weight", None if layer.bias is None else f"{path}.bias", 1, 0, 0, heads, width)

    def by_head(self, model: nn.Module) -> Tensor:
        """The weight, head by head, detached: (h, d, E) for queries, keys and values, (h, E_o, d_v) for the output."""
        part = model.get_parameter(self.weight).detach().narrow(self.axis, self.start, self.heads * self.width)
        if self.axis == 0:
            return part.view(self.heads, self.width, -1)
        return part.view(len(part), self.heads, self.width).movedim(1, 0)

    def axes(self) -> Iterator[tuple[str, int, int]]:
        """(parameter name, axis, first position) of everything along which this projection's heads lie."""
        yield self.weight, self.axis, self.start
        if self.bias is not None and self.axis == 0:
            yield self.bias, 0, self.bias_start


@dataclass(frozen=True)
class AttentionSite:
    """One attention module and where its heads are."""

    name: str
    """Of the module."""
    kind: Kind
    """PyTorch's `multihead`, this package's `compact`, or `declared` by the task."""
    heads: int
    """h."""
    projections: tuple[Projection, Projection, Projection, Projection]
    """Queries, keys, values, output."""
    parts: AttentionParts | None = None
    """What the task says of it; only of kind `declared`."""
    reason: str | None = None
    """Why its weights cannot be changed; None if they can."""

    @property
    def query(self) -> Projection:
        """Of E_q inputs."""
        return self.projections[0]

    @property
    def key(self) -> Projection:
        """Of E_k inputs."""
        return self.projections[1]

    @property
    def value(self) -> Projection:
        """Of E_v inputs."""
        return self.projections[2]

    @property
    def output(self) -> Projection:
        """To E_o outputs."""
        return self.projections[3]

    @property
    def head_width(self) -> int:
        """d, features of a query or key in one head."""
        return self.query.width

    @property
    def value_head_width(self) -> int:
        """d_v, features of a value in one head."""
        return self.value.width

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of all its weights and biases, each once."""
        names = [name for part in self.projections for name in (part.weight, part.bias) if name is not None]
        return tuple(dict.fromkeys(names))

    def kept(self, model: nn.Module, heads: Tensor) -> dict[tuple[str, int], Tensor]:
        """(parameter name, axis) -> which positions stay (boolean) if those of `heads` (h,), True, do."""
        masks: dict[tuple[str, int], Tensor] = {}
        for part in self.projections:
            positions = heads.repeat_interleave(part.width)
            for name, axis, start in part.axes():
                if (name, axis) not in masks:
                    masks[name, axis] = torch.ones(model.get_parameter(name).size(axis), dtype=torch.bool)
                masks[name, axis][start : start + len(positions)] = positions
        return masks
