"""Rules of operators that multiply by weights: matrix products, embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.surgery.trace.elementwise import pin_fixed_partner, unknown
from compressor.surgery.trace.labels import place, varies
from compressor.surgery.trace.meeting import weight

if TYPE_CHECKING:
    from compressor.surgery.trace.atoms import Role
    from compressor.surgery.trace.state import Trace

aten = torch.ops.aten


def _contract(trace: Trace, left: Tensor, right: Tensor, output: Tensor) -> None:
    """Matrix product (..., M, K) x (..., K, N): joins along K, hands labels on along M and N.

    Units that lie along the axes of the batch, such as the heads of an attention, are handed on along these.
    """
    factors = trace.parameter_name(left) is not None and trace.parameter_name(right) is not None
    role: Role = "out" if factors else "in"  # of two factors of one matrix each makes what the other takes in
    left_inner, left_outer = _sides(trace, left, -1, -2, role, _decided(trace, left, right, -1))
    right_inner, right_outer = _sides(trace, right, -2, -1, role, _decided(trace, right, left, -2))
    if left_inner is not None or right_inner is not None:
        join_inner(trace, left, left_inner, right, right_inner)
    if left_outer is not None and right_outer is not None:
        made = [trace.parameter_name(side) is not None for side in (left, right)]  # new units go on, if one makes them
        right_loses = made[0] and not made[1] if any(made) else weight(trace, right_outer) < weight(trace, left_outer)
        loser = right_outer if right_loses else left_outer
        trace.atoms.pin(loser.numpy(), f"the matrix product at {place()} has units on both sides")
        left_outer, right_outer = (left_outer, None) if right_loses else (None, right_outer)
    if right_outer is not None:
        trace.write(output, right_outer.unsqueeze(-2).expand(output.size()))
    elif left_outer is not None:
        trace.write(output, left_outer.unsqueeze(-1).expand(output.size()))
    else:
        trace.write(output, _of_batch(left_inner, right_inner))


def _of_batch(*sides: Tensor | None) -> Tensor | None:
    """Labels (..., 1, 1) that differ along the axes of the batch alone."""
    for labels in sides:
        if labels is None or labels.dim() < 3 or varies(labels, labels.dim() - 1) or varies(labels, labels.dim() - 2):
            continue
        if any(varies(labels, axis) for axis in range(labels.dim() - 2)):
            return labels[..., :1, :1]
    return None


def _decided(trace: Trace, tensor: Tensor, other: Tensor, inner: int) -> Tensor | None:
    """Labels of one side of a product if its partner decides on them; None: they are what they are."""
    table = _of_table(trace, tensor, other)
    return _summed(trace, tensor, other, inner) if table is None else table


def _summed(trace: Trace, tensor: Tensor, other: Tensor, inner: int) -> Tensor | None:
    """Labels that differ along both axes of a matrix whose positions are summed up by weights without features.

    As in an attention over a list of states: what is summed goes together, and elements without a unit are padding.
    """
    if any(trace.parameter_name(side) is not None for side in (tensor, other)) or trace.read(other) is not None:
        return None
    labels = trace.read(tensor)
    axis = tensor.dim() + inner
    if labels is None or not all(varies(labels, each) for each in range(tensor.dim() - 2, tensor.dim())):
        return None
    highest = labels.amax(axis, keepdim=True).expand(labels.size())
    trace.atoms.join(labels.numpy(), highest.numpy())
    return highest


def _of_table(trace: Trace, tensor: Tensor, other: Tensor) -> Tensor | None:
    """Labels of a table along the axis of the batch, if the features that it meets lie there alone."""
    features = trace.read(other) if tensor.dim() > 2 and trace.parameter_name(other) is None else None
    axes = None if features is None else trace.tables.axes(tensor)
    if features is None or axes is None or axes[0] is None or _of_batch(features) is None:
        return None
    return trace.tables.along(axes, 0).expand(tensor.size())


def _sides(
    trace: Trace, tensor: Tensor, inner: int, outer: int, role: Role, labels: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Labels along the contracted axis (..., other, K) and along the kept axis (..., kept).

    A parameter has both, `role` along the contracted one; an activation has one or the other. `labels` are those of a
    table that was decided.
    """
    name = trace.parameter_name(tensor) if labels is None else None
    if name is not None:
        axes = trace.decode(tensor, name)
        if axes is None:
            unknown(trace, aten.mm.default, [tensor], [])
            return None, None
        kept = None if axes[outer] is None else torch.from_numpy(trace.atoms_of(name, axes[outer], "out"))
        contracted = torch.from_numpy(trace.atoms_of(name, axes[inner], role))
        return contracted.view(1, -1), kept
    labels = trace.read(tensor) if labels is None else labels
    if labels is None:
        return None, None
    if not varies(labels, outer % labels.dim()) or varies(labels, inner % labels.dim()):
        return labels.movedim(inner, -1), None
    return None, labels.select(inner, 0)


def join_inner(trace: Trace, left: Tensor, a: Tensor | None, right: Tensor, b: Tensor | None) -> None:
    """Join what meets in a matrix product: labels `a` (..., M, K) of `left` and `b` (..., N, K) of `right`."""
    if a is None or b is None:
        present, own, size = (b, right, left.size(-1)) if a is None else (a, left, right.size(-2))
        assert present is not None
        inner = own.dim() - 1 if own is left else own.dim() - 2
        if size > 1 and trace.parameter_name(own) is None and inner not in trace.constants.along(own):
            trace.atoms.pin(
                present.numpy(), f"the matrix product at {place()} pairs it with a tensor of fixed size {size}"
            )
        return
    for own, labels, axis, other in ((left, a, -1, right), (right, b, -2, left)):
        if trace.parameter_name(own) is None and trace.parameter_name(other) is not None:
            _pin_mixed(trace, own.movedim(axis, -1).reshape(-1, own.size(axis)), labels)
    trace.atoms.join(a.numpy(), b[..., :1, :].numpy())
    trace.atoms.join(a[..., :1, :].numpy(), b.numpy())


def _pin_mixed(trace: Trace, values: Tensor, labels: Tensor) -> None:
    """A position (column) that is a unit in some rows and a fixed feature in others stays.

    Rows of one constant are padding, which shrinks with the rest.
    """
    mixed = labels.reshape(values.size())
    fixed = mixed == 0
    columns = fixed.any(0) & ~fixed.all(0)
    if bool(columns.any()) and bool((values[fixed] != values[fixed][0]).any()):
        trace.atoms.pin(mixed[:, columns].numpy(), f"at {place()} it shares a position with a fixed feature")


def _add_bias(trace: Trace, output: Tensor, bias: Tensor | None) -> None:
    if bias is None:
        return
    labels = trace.read(output)
    bias_labels = trace.read(bias)
    if labels is not None and bias_labels is not None:
        trace.atoms.join(labels.numpy(), bias_labels.expand(labels.size()).numpy())
    elif labels is not None:
        pin_fixed_partner(trace, bias, bias_labels, labels)
    elif bias_labels is not None:
        trace.write(output, bias_labels.expand(output.size()))


def _mm(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    _contract(trace, args[0], args[1], outputs[0])


def _addmm(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    _contract(trace, args[1], args[2], outputs[0])
    _add_bias(trace, outputs[0], args[0])


def _mv(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """A matrix or a vector times a vector."""
    left = args[0].reshape(-1, args[0].size(-1))
    _contract(trace, left, args[1].unsqueeze(-1), outputs[0].reshape(-1, 1))


def _addmv(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    _mv(trace, args[1:], kwargs, outputs)
    _add_bias(trace, outputs[0], args[0])


def _linear(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    inputs, weight = args[0], args[1]
    flat = inputs.reshape(-1, inputs.size(-1)) if trace.read(inputs) is None else inputs
    if flat.dim() != 2:
        labels = trace.read(flat)
        assert labels is not None
        flat = torch.empty(inputs.numel() // inputs.size(-1), inputs.size(-1))
        trace.alive.append(flat)
        trace.write(flat, labels.reshape(flat.size()))
    _contract(trace, flat, weight.t(), outputs[0].view(-1, outputs[0].size(-1)))
    _add_bias(trace, outputs[0], args[2] if len(args) > 2 else None)


def _bilinear(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """Two inputs (N, K) and (N, M) with a weight (O, K, M): x W_o z for each o, as `nn.Bilinear` calls it."""
    left, weight, right = args[:3]
    name = trace.parameter_name(weight)
    as_bilinear = list(map(list, args[3:7])) == [[1, 3], [0], [1, 2], [2, 3]]
    axes = None if name is None else trace.decode(weight, name)
    if name is None or axes is None or not as_bilinear:
        unknown(trace, aten._trilinear.default, [left, weight, right], [trace.read(left), trace.read(right)])
        return
    for axis, data, matrix in ((1, left, weight[0]), (2, right, weight[0].t())):
        consumed = torch.from_numpy(trace.atoms_of(name, axes[axis], "in"))
        labels = trace.read(data)
        if labels is not None:
            join_inner(trace, data, labels, matrix, consumed[None])
    trace.write(outputs[0], torch.from_numpy(trace.atoms_of(name, axes[0], "out")).expand(outputs[0].size()))


def _embedding(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    name = trace.parameter_name(args[0])
    if name is not None:
        atoms = torch.from_numpy(trace.atoms.axis(name, 1, args[0].size(1), "out"))
        trace.write(outputs[0], atoms.expand(outputs[0].size()))


PRODUCTS: dict[Any, Any] = {
    aten.mm.default: _mm,
    aten.bmm.default: _mm,
    aten.mv.default: _mv,
    aten.dot.default: _mv,
    aten.addmv.default: _addmv,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.linear.default: _linear,
    aten._trilinear.default: _bilinear,
    aten.embedding.default: _embedding,
    aten._embedding_bag.default: _embedding,
    aten._embedding_bag_forward_only.default: _embedding,
}
"""Operator -> its rule, of the trace, arguments and outputs."""
