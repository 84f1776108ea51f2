"""Operations of one step applied to all steps at once, where the steps do not depend on each other.

A result per step, of shape S, is stacked to (N, *S). Each rule says how an operator's axes move by that; an operator
without a rule, or whose rule does not give the shape that the tracer saw (`fits`), stays in the loop.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from exporters.loops.graph import leaves, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable

_OPS = torch.ops.aten


@dataclass(frozen=True)
class Stacked:
    """Results of all steps: (N, *S), or several such of an operator that gives several tensors."""

    value: Any

    @property
    def rank(self) -> int:
        """Of a single step."""
        return int(self.value.dim()) - 1


def apply(target: Any, args: Any, kwargs: Any) -> Any:
    """The stacked results of an operator, or None where there is no rule.

    Args:
        target: The operator.
        args: Its arguments, at least one of which is `Stacked`.
        kwargs: Those with names.
    """
    if target is operator.getitem:
        return args[0].value[args[1]] if isinstance(args[0].value, tuple) else None
    if torch.Tag.pointwise in getattr(target, "tags", ()) or target in _POINTWISE:
        return _pointwise(target, args, kwargs)
    rule = _RULES.get(target)
    return None if rule is None else rule(target, args, kwargs)


def _plain(tree: Any) -> Any:
    return map_tree(tree, lambda leaf: leaf.value if isinstance(leaf, Stacked) else leaf)


def _is_stacked(*tree: Any) -> bool:
    return any(isinstance(leaf, Stacked) for leaf in leaves(tree))


def _rank(leaf: Any) -> int:
    if isinstance(leaf, Stacked):
        return leaf.rank
    return leaf.dim() if isinstance(leaf, Tensor) else 0


def _padded(leaf: Any, rank: int) -> Any:
    """Axes of size 1 behind that of the steps, as many as `rank` wants."""
    if not isinstance(leaf, Stacked):
        return leaf
    value = leaf.value
    for _ in range(rank - leaf.rank):
        value = value.unsqueeze(1)
    return value


def _pointwise(target: Any, args: Any, kwargs: Any) -> Any:
    """Arguments are broadcast to each other, from their last axes on."""
    rank = max(_rank(leaf) for leaf in leaves((args, kwargs)))
    args, kwargs = map_tree((args, kwargs), lambda leaf: _padded(leaf, rank))
    return target(*args, **kwargs)


def _as_it_is(count: int) -> Callable[[Any, Any, Any], Any]:
    """Works on the last axes; only the first `count` arguments may be stacked."""

    def rule(target: Any, args: Any, kwargs: Any) -> Any:
        return None if _is_stacked(args[count:], kwargs) else target(*_plain(args), **kwargs)

    return rule


def _embedding(target: Any, args: Any, kwargs: Any) -> Any:
    return None if _is_stacked(args[0], args[2:], kwargs) else target(*_plain(args), **kwargs)


def _moved(axis: int) -> int:
    """An axis, counted with that of the steps."""
    return axis + 1 if axis >= 0 else axis


def _axes_at(*places: int) -> Callable[[Any, Any, Any], Any]:
    """The first argument is stacked; axes stand at some places of the arguments, which may be left out."""

    def rule(target: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], Stacked) or _is_stacked(args[1:], kwargs) or args[0].rank == 0:
            return None
        given = list(args)
        given[0] = args[0].value
        for place in places:
            if place >= len(given):
                return _with_default(target, given, place, kwargs)
            axes = given[place]
            if isinstance(axes, (tuple, list)) and axes:
                given[place] = [_moved(axis) for axis in axes]
            elif type(axes) is int:
                given[place] = _moved(axes)
            else:
                return None
        return target(*given, **kwargs)

    return rule


def _with_default(target: Any, given: list[Any], place: int, kwargs: Any) -> Any:
    """An axis that was left out is the first one, or one counted from the last."""
    argument = target._schema.arguments[place]
    if len(given) < place or argument.name in kwargs or type(argument.default_value) is not int:
        return None
    return target(*given, _moved(argument.default_value), **kwargs)


def _folded(rank: int) -> Callable[[Any, Any, Any], Any]:
    """Samples do not depend on each other, so steps may be samples: x of `rank` axes, the first that of the batch.

    Of rank 0: any with at least two axes.
    """

    def rule(target: Any, args: Any, kwargs: Any) -> Any:
        x = args[0]
        fitting = isinstance(x, Stacked) and (x.rank == rank if rank else x.rank >= 2)
        if not fitting or _is_stacked(args[1:], kwargs):
            return None
        found = target(x.value.flatten(0, 1), *args[1:], **kwargs)
        return found.reshape(*x.value.shape[:2], *found.shape[1:])

    return rule


def _batch_norm(target: Any, args: Any, kwargs: Any) -> Any:
    return None if args[5] else _folded(0)(target, args, kwargs)  # in training samples depend on each other


def _permuted(target: Any, args: Any, kwargs: Any) -> Any:
    x, axes = args
    return target(x.value, [0, *(axis % x.rank + 1 for axis in axes)])


def _viewed(target: Any, args: Any, kwargs: Any) -> Any:
    if _is_stacked(args[1:]):
        return None
    x = args[0].value
    return x.reshape([x.shape[0], *args[1]])  # stacked steps may be in another order than the axes


def _expanded(target: Any, args: Any, kwargs: Any) -> Any:
    if _is_stacked(args[1:]):
        return None
    x, sizes = args[0], args[1]
    return target(_padded(x, len(sizes)), [x.value.shape[0], *sizes], **kwargs)


def _full(target: Any, args: Any, kwargs: Any) -> Any:
    """The number of the step, as a tensor."""
    sizes, number = args
    if _is_stacked(sizes) or not isinstance(number, Stacked) or number.rank:
        return None
    steps = number.value.reshape(-1, *[1] * len(sizes))
    wide = steps.expand(steps.shape[0], *sizes)
    return wide if kwargs.get("dtype") in (None, wide.dtype) else wide.to(kwargs["dtype"])


def _joined(target: Any, args: Any, kwargs: Any) -> Any:
    parts, axis = args[0], args[1] if len(args) > 1 else 0
    count = next(leaf.value.shape[0] for leaf in parts if isinstance(leaf, Stacked))
    given = [
        leaf.value if isinstance(leaf, Stacked) else leaf.unsqueeze(0).expand(count, *leaf.shape) for leaf in parts
    ]
    return target(given, _moved(axis))


def _product(target: Any, args: Any, kwargs: Any) -> Any:
    """Matrices; an axis of size 1 stands for what only one of the two has."""
    one, other = args
    ranks = _rank(one), _rank(other)
    if min(ranks) < 2:
        if isinstance(one, Stacked) and ranks[0] >= 1 and not isinstance(other, Stacked) and ranks[1] == 2:
            return torch.matmul(one.value, other)
        return None
    return torch.matmul(_padded(one, max(ranks)), _padded(other, max(ranks)))


def _product_with_bias(target: Any, args: Any, kwargs: Any) -> Any:
    bias, x, weight = args
    if not isinstance(x, Stacked) or _is_stacked(bias, weight) or kwargs:
        return None
    return torch.matmul(x.value, weight) + bias


_POINTWISE = (_OPS.to.dtype, _OPS._to_copy.default, _OPS.clone.default, _OPS.where.self)
_LAST = _as_it_is(1)
_RULES: dict[Any, Callable[[Any, Any, Any], Any]] = {
    _OPS.linear.default: _LAST,
    _OPS.layer_norm.default: _LAST,
    _OPS.rms_norm.default: _LAST,
    _OPS.embedding.default: _embedding,
    _OPS.permute.default: _permuted,
    _OPS.view.default: _viewed,
    _OPS.reshape.default: _viewed,
    _OPS._unsafe_view.default: _viewed,
    _OPS.expand.default: _expanded,
    _OPS.full.default: _full,
    _OPS.cat.default: _joined,
    _OPS.stack.default: _joined,
    _OPS.matmul.default: _product,
    _OPS.mm.default: _product,
    _OPS.bmm.default: _product,
    _OPS.addmm.default: _product_with_bias,
    **dict.fromkeys(
        (
            _OPS.softmax.int,
            _OPS.log_softmax.int,
            _OPS._softmax.default,
            _OPS._log_softmax.default,
            _OPS.argmax.default,
            _OPS.argmin.default,
            _OPS.sum.dim_IntList,
            _OPS.mean.dim,
            _OPS.amax.default,
            _OPS.amin.default,
            _OPS.max.dim,
            _OPS.min.dim,
            _OPS.cumsum.default,
            _OPS.squeeze.dim,
            _OPS.squeeze.dims,
            _OPS.unsqueeze.default,
            _OPS.select.int,
            _OPS.slice.Tensor,
            _OPS.flip.default,
            _OPS.glu.default,
            _OPS.linalg_vector_norm.default,
        ),
        _axes_at(1),
    ),
    _OPS.batch_norm.default: _batch_norm,
    _OPS.group_norm.default: _folded(0),
    **dict.fromkeys((_OPS.conv1d.default, _OPS.conv1d.padding, _OPS.max_pool1d.default), _folded(3)),
    **dict.fromkeys((_OPS.avg_pool1d.default, _OPS.adaptive_avg_pool1d.default), _folded(3)),
    **dict.fromkeys((_OPS.conv2d.default, _OPS.conv2d.padding, _OPS.max_pool2d.default), _folded(4)),
    **dict.fromkeys((_OPS.avg_pool2d.default, _OPS.adaptive_avg_pool2d.default), _folded(4)),
    **dict.fromkeys((_OPS.chunk.default, _OPS.split.Tensor, _OPS.split_with_sizes.default), _axes_at(2)),
    **dict.fromkeys((_OPS.transpose.int, _OPS.flatten.using_ints), _axes_at(1, 2)),
}
_RULES[_OPS.linalg_vector_norm.default] = _axes_at(2)
_RULES[_OPS.glu.default] = _axes_at(1)


def fits(target: Any, args: Any, kwargs: Any, wanted: Any, count: int) -> bool:
    """Whether an operator can be applied to `count` steps: tried on tensors without numbers.

    Args:
        target: The operator.
        args: Its arguments; tensors on the device `meta`.
        kwargs: Those with names.
        wanted: The shape and type of a single result, or of each of several.
        count: The steps in `args`.
    """
    if not _is_stacked(args, kwargs):
        return False
    try:
        found = apply(target, args, kwargs)
    except Exception:  # whatever the operator says of arguments that it does not take
        return False
    if found is None:
        return False
    several = isinstance(found, (tuple, list))
    if several != isinstance(wanted, tuple):
        return False
    return [(part.shape, part.dtype) for part in (found if several else [found])] == [
        (torch.Size((count, *part.shape)), part.dtype) for part in (wanted if several else [wanted])
    ]
