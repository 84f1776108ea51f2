"""Operators that PyTorch's exporter has no ONNX form for, by others that have one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_OPS = torch.ops.aten
_LOWEST, _HIGHEST = 1.0 / 8, 1.0 / 3


def _rrelu(
    x: Tensor, lower: float = _LOWEST, upper: float = _HIGHEST, training: bool = False, generator: Any = None
) -> Tensor:
    """In evaluation a leaky ReLU of the mean slope."""
    if training:
        raise NotImplementedError("rrelu in training draws its slopes")
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def _median(x: Tensor) -> Tensor:
    """The lower one of the two in the middle, of all elements."""
    return _median_along(x.reshape(-1), 0)[0]


def _median_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower one of the two in the middle along an axis, and its place."""
    values, places = torch.sort(x, dim=dim)
    middle = (x.shape[dim] - 1) // 2
    found = values.select(dim, middle), places.select(dim, middle)
    return (found[0].unsqueeze(dim), found[1].unsqueeze(dim)) if keepdim else found


def _distances(left: Tensor, right: Tensor, p: float, compute_mode: int | None) -> Tensor:
    """The p-norm of the difference of each of (..., P, M) from each of (..., R, M), (..., P, R)."""
    norms: Tensor = torch.linalg.vector_norm(left.unsqueeze(-2) - right.unsqueeze(-3), p, -1)
    return norms


OWN_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _OPS.rrelu.default: _rrelu,
    _OPS.median.default: _median,
    _OPS.median.dim: _median_along,
    _OPS._cdist_forward.default: _distances,
}
"""Operator -> what computes the same in evaluation mode, of the same arguments."""
