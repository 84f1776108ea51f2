"""Operators that PyTorch's exporter decomposes into a single other one, which can be put into their place as it is.

Each is written as PyTorch's own decomposition writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import fx

_OPS = torch.ops.aten


@dataclass(frozen=True)
class Call:
    """What stands for an operator. Sizes among its arguments may be symbols."""

    target: Any
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    result: int | None = None
    """Which of the results of `target` it is, if it has several."""


SAME = Call(None, ())
"""The operator gives its first argument."""


def written(node: fx.Node) -> Call | None:
    """What stands for a node, in evaluation mode; None if it is to be decomposed, or stays."""
    if not isinstance(node.meta.get("val"), (torch.Tensor, tuple, list, torch.SymInt)):
        return None
    rule = _RULES.get(node.target)
    return None if rule is None else rule(node)


def _dropout(node: fx.Node) -> Call | None:
    return SAME if node.args[2] is False else None


def _view(node: fx.Node) -> Call:
    return Call(_OPS.reshape.default, (node.args[0], list(_shape(node))))


def _reshape(node: fx.Node) -> Call:
    """With sizes as the program computes them; what it leaves open (-1) as it comes out."""
    x, given = _arguments(node)
    sizes = [size if isinstance(part, int) else part for part, size in zip(given, _shape(node), strict=True)]
    return Call(_OPS.reshape.default, (x, sizes))


def _to(node: fx.Node) -> Call | None:
    """Another type, which may be the same."""
    if any(node.args[2:]) or node.kwargs:
        return None
    x, new = node.args[0], node.meta["val"].dtype
    return SAME if _value(x).dtype == new else Call(_OPS._to_copy.default, (x,), {"dtype": node.args[1]})


def _to_layout(node: fx.Node) -> Call | None:
    """A type, a device and a layout that the tensor has already."""
    old, new = _value(node.args[0]), node.meta["val"]
    kept = old.dtype == new.dtype and old.device == new.device and old.layout == new.layout
    return SAME if kept and not node.kwargs.get("copy") else None


def _transposed(node: fx.Node) -> Call:
    return Call(_OPS.permute.default, (node.args[0], [*reversed(range(node.meta["val"].dim()))]))


def _square(node: fx.Node) -> Call | None:
    return Call(_OPS.pow.Tensor_Scalar, (node.args[0], 2)) if node.meta["val"].is_floating_point() else None


def _chunk(node: fx.Node) -> Call | None:
    """Pieces of a size that is known; the last one may be smaller."""
    x, count, axis = (*_arguments(node), 0)[:3]
    size = _value(x).shape[axis]
    if not isinstance(size, int) or not size or not isinstance(count, int):
        return None
    return Call(_OPS.split.Tensor, (x, -(-size // count), axis))


def _expand_as(node: fx.Node) -> Call:
    return Call(_OPS.expand.default, (node.args[0], list(_shape(node))))


def _narrow(node: fx.Node) -> Call | None:
    x, axis, start, length = _arguments(node)
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return None
    return Call(_OPS.slice.Tensor, (x, axis, start, start + length))


def _batch_norm(node: fx.Node) -> Call | None:
    x, weight, bias, mean, variance, training, momentum, epsilon, _ = _arguments(node)
    if training is not False or mean is None or variance is None:
        return None
    arguments = (x, weight, bias, mean, variance, momentum, epsilon)
    return Call(_OPS._native_batch_norm_legit_no_training.default, arguments, result=0)


def _item(node: fx.Node) -> Call:
    return Call(_OPS._local_scalar_dense.default, node.args)


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return node.args


def _value(node: Any) -> torch.Tensor:
    value: torch.Tensor = node.meta["val"]
    return value


def _shape(node: fx.Node) -> torch.Size:
    return _value(node).shape


_RULES: dict[Any, Callable[[fx.Node], Call | None]] = {
    **dict.fromkeys((_OPS.dropout.default, _OPS.feature_dropout.default, _OPS.alpha_dropout.default), _dropout),
    **dict.fromkeys((_OPS.contiguous.default, _OPS.detach.default, _OPS.alias.default), lambda node: SAME),
    **dict.fromkeys((_OPS.flatten.using_ints, _OPS.unflatten.int), _view),
    _OPS.reshape.default: _reshape,
    _OPS.to.dtype: _to,
    _OPS.to.dtype_layout: _to_layout,
    _OPS.numpy_T.default: _transposed,
    _OPS.square.default: _square,
    _OPS.chunk.default: _chunk,
    _OPS.expand_as.default: _expand_as,
    _OPS.narrow.default: _narrow,
    _OPS.batch_norm.default: _batch_norm,
    _OPS.item.default: _item,
    _OPS.__and__.Tensor: lambda node: Call(_OPS.bitwise_and.Tensor, node.args),
    _OPS.__or__.Tensor: lambda node: Call(_OPS.bitwise_or.Tensor, node.args),
}
