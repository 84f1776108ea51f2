"""How an operator's axes move if its tensors are stacked: one function for each kind of operator.

A rule is given the operator, its arguments, of which some are `Stacked`, and those with names. It gives the stacked
results, or None if it does not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from exporters.loops.operations import leaves, map_tree
from exporters.loops.stacked import Stacked, is_stacked, padded, plain, rank_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Rule = Callable[[Any, Any, Any], Any]


def pointwise(target: Any, args: Any, kwargs: Any) -> Any:
    """Arguments are broadcast to each other, from their last axes on."""
    rank = max(rank_of(leaf) for leaf in leaves((args, kwargs)))
    args, kwargs = map_tree((args, kwargs), lambda leaf: padded(leaf, rank))
    return target(*args, **kwargs)


def as_it_is(count: int) -> Rule:
    """Works on the last axes; only the first `count` arguments may be stacked."""

    def rule(target: Any, args: Any, kwargs: Any) -> Any:
        return None if is_stacked(args[count:], kwargs) else target(*plain(args), **kwargs)

    return rule


def embedding(target: Any, args: Any, kwargs: Any) -> Any:
    """Rows of a table."""
    return None if is_stacked(args[0], args[2:], kwargs) else target(*plain(args), **kwargs)


def _moved(axis: int) -> int:
    """An axis, counted with that of the steps."""
    return axis + 1 if axis >= 0 else axis


def axes_at(*places: int) -> Rule:
    """The first argument is stacked; axes stand at some places of the arguments, which may be left out."""

    def rule(target: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], Stacked) or is_stacked(args[1:], kwargs) or args[0].rank == 0:
            return None
        arguments = [args[0].value, *args[1:]]
        for place in places:
            if place >= len(arguments):
                return _with_default(target, arguments, place, kwargs)
            axes = arguments[place]
            if isinstance(axes, (tuple, list)) and axes:
                arguments[place] = [_moved(axis) for axis in axes]
            elif type(axes) is int:
                arguments[place] = _moved(axes)
            else:
                return None
        return target(*arguments, **kwargs)

    return rule


def _with_default(target: Any, arguments: list[Any], place: int, kwargs: Any) -> Any:
    """An axis that was left out is the first one, or one counted from the last."""
    argument = target._schema.arguments[place]
    if len(arguments) < place or argument.name in kwargs or type(argument.default_value) is not int:
        return None
    return target(*arguments, _moved(argument.default_value), **kwargs)


def folded(rank: int) -> Rule:
    """Samples do not depend on each other, so steps may be samples: x of `rank` axes, the first that of the batch.

    Of rank 0: any with at least two axes.
    """

    def rule(target: Any, args: Any, kwargs: Any) -> Any:
        x = args[0]
        fitting = isinstance(x, Stacked) and (x.rank == rank if rank else x.rank >= 2)
        if not fitting or is_stacked(args[1:], kwargs):
            return None
        results = target(x.value.flatten(0, 1), *args[1:], **kwargs)
        return results.reshape(*x.value.shape[:2], *results.shape[1:])

    return rule


def batch_norm(target: Any, args: Any, kwargs: Any) -> Any:
    """In evaluation mode."""
    return None if args[5] else folded(0)(target, args, kwargs)  # in training samples depend on each other


def permuted(target: Any, args: Any, kwargs: Any) -> Any:
    """`x.permute(...)`."""
    x, axes = args
    return target(x.value, [0, *(axis % x.rank + 1 for axis in axes)])


def viewed(target: Any, args: Any, kwargs: Any) -> Any:
    """Other sizes, for which the steps stay apart."""
    if is_stacked(args[1:]):
        return None
    x = args[0].value
    return x.reshape([x.shape[0], *args[1]])  # stacked steps may be in another order than the axes


def expanded(target: Any, args: Any, kwargs: Any) -> Any:
    """Axes of size 1 become longer."""
    if is_stacked(args[1:]):
        return None
    x, sizes = args[0], args[1]
    return target(padded(x, len(sizes)), [x.value.shape[0], *sizes], **kwargs)


def full(target: Any, args: Any, kwargs: Any) -> Any:
    """The number of the step, as a tensor."""
    sizes, number = args
    if is_stacked(sizes) or not isinstance(number, Stacked) or number.rank:
        return None
    steps = number.value.reshape(-1, *[1] * len(sizes))
    wide = steps.expand(steps.shape[0], *sizes)
    return wide if kwargs.get("dtype") in (None, wide.dtype) else wide.to(kwargs["dtype"])


def joined(target: Any, args: Any, kwargs: Any) -> Any:
    """`torch.cat` and `torch.stack`."""
    parts, axis = args[0], args[1] if len(args) > 1 else 0
    count = next(leaf.value.shape[0] for leaf in parts if isinstance(leaf, Stacked))
    pieces = [
        leaf.value if isinstance(leaf, Stacked) else leaf.unsqueeze(0).expand(count, *leaf.shape) for leaf in parts
    ]
    return target(pieces, _moved(axis))


def product(target: Any, args: Any, kwargs: Any) -> Any:
    """Matrices; an axis of size 1 stands for what only one of the two has."""
    one, other = args
    ranks = rank_of(one), rank_of(other)
    if min(ranks) < 2:
        if isinstance(one, Stacked) and ranks[0] >= 1 and not isinstance(other, Stacked) and ranks[1] == 2:
            return torch.matmul(one.value, other)
        return None
    return torch.matmul(padded(one, max(ranks)), padded(other, max(ranks)))


def product_with_bias(target: Any, args: Any, kwargs: Any) -> Any:
    """`torch.addmm`."""
    bias, x, weight = args
    if not isinstance(x, Stacked) or is_stacked(bias, weight) or kwargs:
        return None
    return torch.matmul(x.value, weight) + bias
