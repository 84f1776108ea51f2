"""Rules of operators that keep every element by itself: element-wise functions, and moves into new storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compressor.surgery.trace.labels import filled, place, varies
from compressor.surgery.trace.meeting import aligned, of_one_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.surgery.trace.state import Trace

aten = torch.ops.aten

# Operations that move elements into new storage: run on the labels as they are. Value: positions of the arguments that
# carry elements (the others, such as indices, are used as they are).
MOVES: dict[Any, tuple[int, ...]] = {
    aten.clone.default: (0,),
    aten.contiguous.default: (0,),
    aten.cat.default: (0,),
    aten.stack.default: (0,),
    aten.index.Tensor: (0,),
    aten.index_select.default: (0,),
    aten.gather.default: (0,),
    aten.flip.default: (0,),
    aten.roll.default: (0,),
    aten.repeat.default: (0,),
    aten.tril.default: (0,),
    aten.triu.default: (0,),
    aten.masked_select.default: (0,),
    aten.slice_scatter.default: (0, 1),
    aten.select_scatter.default: (0, 1),
    aten.index_put.default: (0, 2),
    aten.index_put_.default: (0, 2),
    aten.copy_.default: (0, 1),
    aten._pack_padded_sequence.default: (0,),
}
SAME_SHAPE = {
    aten._to_copy.default,
    aten.masked_fill.Scalar,
    aten.masked_fill_.Scalar,
    aten.fill_.Scalar,
    aten.fill_.Tensor,
    aten.zero_.default,
}
LIKE = {
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
}
CONSTANTS = {
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten.empty.memory_format,
    aten.empty_strided.default,
}
"""Operations that make a tensor of one number, or one that is still to be written; of another tensor only the type is
taken."""
SUMS = {aten.add, aten.add_, aten.sub, aten.sub_}
KEEPS_ZERO = (
    SUMS
    | {
        getattr(aten, name + suffix)
        for name in (
            "mul",
            "div",
            "neg",
            "relu",
            "tanh",
            "leaky_relu",
            "elu",
            "hardtanh",
            "abs",
            "sin",
            "square",
            "sqrt",
            "hardswish",
            "mish",
            "celu",
            "erf",
            "expm1",
            "log1p",
            "asinh",
            "sinh",
            "atan",
            "tan",
            "round",
            "floor",
            "ceil",
            "trunc",
        )
        for suffix in ("", "_")
    }
    | {aten.gelu, aten.silu, aten.silu_, aten.where, aten.maximum, aten.minimum, aten.sign, aten.native_dropout}
    | {aten._prelu_kernel, aten.rrelu_with_noise, aten.hardshrink, aten.softshrink, aten.dropout}
)
"""Element-wise operations that give 0 where their units are 0 (a sum only if both sides are units)."""
POINTWISE = {
    aten.dropout.default,
    aten.native_dropout.default,
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.log_sigmoid_forward.default,
    aten.rrelu_with_noise.default,
    aten.rrelu_with_noise_.default,
    aten._prelu_kernel.default,
}
"""Element-wise operations that PyTorch does not mark as such."""


def unknown(trace: Trace, func: Any, tensors: list[Tensor], before: list[Tensor | None]) -> None:
    """Pin what an operator without a rule touches; `before` are the labels of its tensors."""
    labelled = [label for label in before if label is not None]
    for label in labelled:
        trace.atoms.pin(label.numpy(), f"`{func.name()}` at {place()} is not followed")
    for tensor in tensors:
        name = trace.parameter_name(tensor)
        if name is not None:
            for axis in range(trace.tensors[name].dim()):
                atoms = trace.atoms.axis(name, axis, trace.tensors[name].size(axis), "out")
                trace.atoms.pin(atoms, f"`{func.name()}` at {place()} is not followed")


def move(trace: Trace, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """Move the labels as the elements are moved."""
    arguments = list(args)
    carried = func is aten.cat.default and _label_constants(trace, *args)
    for position in MOVES[func]:
        value = arguments[position]
        if isinstance(value, Tensor):
            labels = trace.read(value)
            carried = carried or labels is not None
            arguments[position] = _dense(value, labels)
        else:
            parts = [(part, trace.read(part)) for part in value]
            carried = carried or any(labels is not None for _, labels in parts)
            arguments[position] = [_dense(part, labels) for part, labels in parts]
    target = outputs[0]
    if not carried and target.untyped_storage().data_ptr() not in trace.labels:
        return
    moved = func(*arguments, **{k: v for k, v in kwargs.items() if k != "dtype"})
    trace.write(target, moved[0] if isinstance(moved, tuple) else moved)


def _label_constants(trace: Trace, parts: Sequence[Tensor], axis: int = 0) -> bool:
    """Give a constant beside features the atoms of new features, as of a state of zeros beside the input.

    Beside features that lie along another axis it is padding, which needs none.
    """
    constants = [part for part in parts if part in trace.constants]
    labels = [label for part in parts if (label := trace.read(part)) is not None]
    if len(constants) == len(parts) or (labels and not any(varies(label, axis) for label in labels)):
        return False
    for part in constants:
        if part.dim() and part.size(axis) > 1:
            shape = [1] * part.dim()
            shape[axis] = -1
            trace.write(part, torch.from_numpy(trace.atoms.new_constants(part.size(axis))).view(shape))
    return bool(constants)


def _dense(tensor: Tensor, labels: Tensor | None) -> Tensor:
    return torch.zeros(tensor.size(), dtype=torch.int64) if labels is None else labels.clone()


def pointwise(
    trace: Trace, func: Any, tensors: list[Tensor], before: list[Tensor | None], outputs: list[Tensor]
) -> None:
    """Join the units that meet; `before` are the labels of the tensors."""
    shape = outputs[0].size()
    if trace.tables.takes(tensors, outputs):
        return
    before = aligned(trace, tensors, before, shape)
    present = [label.expand(shape) for label in before if label is not None and label.numel()]
    if not present:
        for output in outputs:
            trace.write(output, None)
        return
    present = of_one_axis(trace, present)
    labels = torch.stack(present).amax(0)
    for other in present:
        trace.atoms.join(labels.numpy(), other.numpy())
    for tensor, own in zip(tensors, before, strict=True):
        pin_fixed_partner(trace, tensor, own, labels)
    others = [tensor for tensor, label in zip(tensors, before, strict=True) if label is None]
    to_zero = bool(others) and all(map(trace.constants.is_zero, others))
    added = func.overloadpacket in SUMS and len(present) < 2 and not to_zero
    if added or func.overloadpacket not in KEEPS_ZERO:
        trace.shifted.append(np.unique(labels.numpy()))
    for output in outputs:
        if output.size() == shape:
            trace.write(output, labels)


def pin_fixed_partner(trace: Trace, tensor: Tensor, own: Tensor | None, labels: Tensor) -> None:
    """A partner that has a value of its own for every unit, but is no unit's feature, keeps its size."""
    full = torch.zeros((), dtype=torch.int64) if own is None else own
    padded = [1] * (labels.dim() - tensor.dim()) + list(tensor.size())
    strides = [0] * (labels.dim() - tensor.dim()) + list(tensor.stride())
    varying = [varies(labels, axis) for axis in range(labels.dim())]
    for axis in trace.constants.along(tensor):
        varying[axis + labels.dim() - tensor.dim()] = False
    if not any(v and size > 1 and stride for v, size, stride in zip(varying, padded, strides, strict=True)):
        return
    alone = labels[(full.expand(labels.size()) == 0) & (labels != 0)]
    if alone.numel():
        trace.atoms.pin(
            alone.numpy(), f"at {place()} it is combined with a tensor of fixed size {tuple(tensor.size())}"
        )


def _glu(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """The first half times the sigmoid of the second one, along an axis."""
    labels, axis = trace.read(args[0]), args[1] if len(args) > 1 else -1
    if labels is None:
        return
    halves = labels.chunk(2, axis)
    trace.atoms.join(halves[0].numpy(), halves[1].numpy())
    trace.write(outputs[0], torch.maximum(*halves))


def _pad(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    labels = trace.read(args[0])
    if labels is not None:
        padded = aten.constant_pad_nd.default(labels.clone(), args[1], 0)
        axes = [axis for axis in range(labels.dim()) if not varies(labels, axis)]
        trace.write(outputs[0], filled(padded, axes))


ELEMENTWISE: dict[Any, Any] = {
    aten.glu.default: _glu,
    aten.constant_pad_nd.default: _pad,
}
"""Operator -> its rule, of the trace, arguments and outputs."""
