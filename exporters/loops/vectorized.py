"""Operations of one step applied to all steps at once, if the steps do not depend on each other.

A result per step, of shape S, is stacked to (N, *S). Each rule says how an operator's axes move by that (`axis_rules`);
an operator without a rule, or whose rule does not give the shape that the tracer saw (`fits`), stays in the loop.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from exporters.loops import axis_rules as rules
from exporters.loops.stacked import is_stacked

if TYPE_CHECKING:
    from exporters.loops.axis_rules import Rule

_OPS = torch.ops.aten


def apply(target: Any, args: Any, kwargs: Any) -> Any:
    """The stacked results of an operator, or None if there is no rule.

    Args:
        target: The operator.
        args: Its arguments, at least one of which is `Stacked`.
        kwargs: Those with names.
    """
    if target is operator.getitem:
        return args[0].value[args[1]] if isinstance(args[0].value, tuple) else None
    if torch.Tag.pointwise in getattr(target, "tags", ()) or target in _POINTWISE:
        return rules.pointwise(target, args, kwargs)
    rule = _RULES.get(target)
    return None if rule is None else rule(target, args, kwargs)


_POINTWISE = (_OPS.to.dtype, _OPS._to_copy.default, _OPS.clone.default, _OPS.where.self)
_LAST = rules.as_it_is(1)
_RULES: dict[Any, Rule] = {
    _OPS.linear.default: _LAST,
    _OPS.layer_norm.default: _LAST,
    _OPS.rms_norm.default: _LAST,
    _OPS.embedding.default: rules.embedding,
    _OPS.permute.default: rules.permuted,
    _OPS.view.default: rules.viewed,
    _OPS.reshape.default: rules.viewed,
    _OPS._unsafe_view.default: rules.viewed,
    _OPS.expand.default: rules.expanded,
    _OPS.full.default: rules.full,
    _OPS.cat.default: rules.joined,
    _OPS.stack.default: rules.joined,
    _OPS.matmul.default: rules.product,
    _OPS.mm.default: rules.product,
    _OPS.bmm.default: rules.product,
    _OPS.addmm.default: rules.product_with_bias,
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
        rules.axes_at(1),
    ),
    _OPS.batch_norm.default: rules.batch_norm,
    _OPS.group_norm.default: rules.folded(0),
    **dict.fromkeys((_OPS.conv1d.default, _OPS.conv1d.padding, _OPS.max_pool1d.default), rules.folded(3)),
    **dict.fromkeys((_OPS.avg_pool1d.default, _OPS.adaptive_avg_pool1d.default), rules.folded(3)),
    **dict.fromkeys((_OPS.conv2d.default, _OPS.conv2d.padding, _OPS.max_pool2d.default), rules.folded(4)),
    **dict.fromkeys((_OPS.avg_pool2d.default, _OPS.adaptive_avg_pool2d.default), rules.folded(4)),
    **dict.fromkeys((_OPS.chunk.default, _OPS.split.Tensor, _OPS.split_with_sizes.default), rules.axes_at(2)),
    **dict.fromkeys((_OPS.transpose.int, _OPS.flatten.using_ints), rules.axes_at(1, 2)),
}
_RULES[_OPS.linalg_vector_norm.default] = rules.axes_at(2)
_RULES[_OPS.glu.default] = rules.axes_at(1)


def fits(target: Any, args: Any, kwargs: Any, wanted: Any, count: int) -> bool:
    """Whether an operator can be applied to `count` steps: tried on tensors without numbers.

    Args:
        target: The operator.
        args: Its arguments; tensors on the device `meta`.
        kwargs: Those with names.
        wanted: The shape and type of a single result, or of each of several.
        count: The steps in `args`.
    """
    if not is_stacked(args, kwargs):
        return False
    try:
        results = apply(target, args, kwargs)
    except Exception:  # whatever the operator says of arguments that it does not take
        return False
    if results is None:
        return False
    several = isinstance(results, (tuple, list))
    if several != isinstance(wanted, tuple):
        return False
    return [(part.shape, part.dtype) for part in (results if several else [results])] == [
        (torch.Size((count, *part.shape)), part.dtype) for part in (wanted if several else [wanted])
    ]
