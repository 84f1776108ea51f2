"""Equal forms of one operation: aliases and whole slices are gone, and places count from the start."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Protocol

import torch

from exporters.loops.operations import Op

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_OPS = torch.ops.aten
_SAME = (
    _OPS.alias.default,
    _OPS.clone.default,
    _OPS.contiguous.default,
    _OPS.detach.default,
    _OPS.detach_.default,
    _OPS.lift_fresh.default,
    _OPS.lift_fresh_copy.default,
)
"""Operators that give their first argument."""
_DROPOUTS = (_OPS.dropout.default, _OPS.feature_dropout.default, _OPS.alpha_dropout.default)
_PIECES = (_OPS.split.Tensor, _OPS.chunk.default, _OPS.split_with_sizes.default, _OPS.split.sizes)
_FILLED = {_OPS.new_zeros.default: 0.0, _OPS.new_ones.default: 1.0, _OPS.zeros_like.default: 0.0} | {
    _OPS.ones_like.default: 1.0
}
_MANY = 5
"""A tensor cut into so many pieces may be cut into its steps."""
_ALL = 2**62


class Add(Protocol):
    """Gives the operation with these arguments, a new one or one that is known."""

    def __call__(self, target: Any, args: Any, kwargs: Any, value: Any, code: str) -> Any:
        """`value` is the result of the tracer, `code` the line of the model."""


class Simplifier:
    """Gives for an operation a plainer one."""

    def __init__(self, add: Add, sizes: Mapping[str, Op], length: int) -> None:
        """For a program.

        Args:
            add: Gives the operation that replaces another one.
            sizes: Expression -> what computes this size.
            length: Of the sequences in the trace.
        """
        self._add, self._sizes, self._length = add, sizes, length
        self._rules = {
            _OPS.narrow.default: self._narrow,
            _OPS.slice.Tensor: self._slice,
            _OPS.slice_scatter.default: self._overwrite,
            _OPS.copy.default: self._overwrite,
            _OPS.select.int: self._select,
            _OPS.select_scatter.default: self._select_scatter,
            operator.getitem: self._getitem,
        }

    def simplified(self, target: Any, args: Any, value: Any, code: str) -> Any:
        """The plainer operation, or None if there is none."""
        if target in _SAME or (target in _DROPOUTS and not args[2]):
            return args[0]
        if target in _FILLED:
            return self._filled(target, value, code)
        return self._rules[target](args, value, code) if target in self._rules else None

    def _overwrite(self, args: Any, value: Any, code: str) -> Any:
        """What is written over the whole of a tensor is the tensor."""
        return args[1] if _same_shape(args[0].value, args[1].value) else None

    def _narrow(self, args: Any, value: Any, code: str) -> Any:
        """`narrow` is a slice."""
        x, axis, start, length = args
        if not isinstance(start, int) or not isinstance(length, int):
            return None
        return self._add(_OPS.slice.Tensor, (x, axis, start, start + length), {}, value, code)

    def _slice(self, args: Any, value: Any, code: str) -> Any:
        """A slice of the whole axis is no slice; ends count from the start."""
        defaults: tuple[Any, ...] = (None, 0, None, None, 1)
        x, axis, start, end, step = tuple(args) + defaults[len(args) :]
        size = x.value.shape[axis]
        whole = end is None or (isinstance(end, int) and end >= (size if isinstance(size, int) else _ALL))
        if step == 1 and start in (None, 0) and whole:
            return x
        if isinstance(size, int) and isinstance(start, (int, type(None))) and isinstance(end, (int, type(None))):
            first, last, _ = slice(start, end, step).indices(size)
            plain = (x, axis % x.value.dim(), first, last, step)
            if plain != (x, axis, start, end, step):
                return self._add(_OPS.slice.Tensor, plain, {}, value, code)
        return None

    def _select(self, args: Any, value: Any, code: str) -> Any:
        """Places count from the start; what was just written into a tensor is not read from it."""
        x, axis, place = args
        size = x.value.shape[axis]
        if not isinstance(place, int) or not isinstance(size, int):
            return None
        plain = (axis % x.value.dim(), place % size)
        if x.target is _OPS.select_scatter.default and x.args[2] == plain[0] and isinstance(x.args[3], int):
            if x.args[3] == plain[1]:
                return x.args[1]
            return self._add(_OPS.select.int, (x.args[0], *plain), {}, value, code)
        if plain != (axis, place):
            return self._add(_OPS.select.int, (x, *plain), {}, value, code)
        return None

    def _select_scatter(self, args: Any, value: Any, code: str) -> Any:
        base, new, axis, place = args
        size = base.value.shape[axis]
        if not isinstance(place, int) or not isinstance(size, int):
            return None
        plain = (base, new, axis % base.value.dim(), place % size)
        if plain != tuple(args):
            return self._add(_OPS.select_scatter.default, plain, {}, value, code)
        return None

    def _getitem(self, args: Any, value: Any, code: str) -> Any:
        """One of the steps into which a tensor was cut."""
        source, place = args
        if not isinstance(source, Op):
            return None
        if source.target is _OPS.unbind.int:
            axis = source.args[1] if len(source.args) > 1 else 0
            return self._add(_OPS.select.int, (source.args[0], axis, place), {}, value, code)
        if source.target in _PIECES and len(source.value) >= min(_MANY, self._length):
            x = source.args[0]
            axis = (source.args[2] if len(source.args) > 2 else source.kwargs.get("dim", 0)) % x.value.dim()
            sizes = [piece.shape[axis] for piece in source.value]
            if all(isinstance(size, int) for size in sizes):
                start = sum(sizes[:place])
                return self._add(_OPS.slice.Tensor, (x, axis, start, start + sizes[place], 1), {}, value, code)
        return None

    def _filled(self, target: Any, value: Any, code: str) -> Any:
        """A tensor of zeros as large as another one depends on sizes alone."""
        sizes = [size if isinstance(size, int) else self._sizes.get(str(size)) for size in value.shape]
        if None in sizes:
            return None
        kwargs = {"dtype": value.dtype, "device": torch.device("cpu")}
        fill = _OPS.ones.default if _FILLED[target] else _OPS.zeros.default
        return self._add(fill, (tuple(sizes),), kwargs, value, code)


def _same_shape(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and [str(size) for size in one.shape] == [str(size) for size in other.shape]
