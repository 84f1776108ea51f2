"""Rules of operators that combine elements along axes: reductions, pooling, normalisations, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compressor.surgery.trace.labels import mixes, place, varies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.surgery.trace.state import Trace

aten = torch.ops.aten

NORMALISING = {aten._softmax.default, aten._log_softmax.default}
REDUCTIONS = {
    aten.sum.dim_IntList,
    aten.mean.dim,
    aten.amax.default,
    aten.amin.default,
    aten.max.dim,
    aten.min.dim,
    aten.logsumexp.default,
    aten.linalg_vector_norm.default,
    aten.var.correction,
    aten.std.correction,
    aten.var_mean.correction,
    aten.median.dim,
    aten.nanmedian.dim,
    aten.mode.default,
    aten.prod.dim_int,
    aten.sum.default,
    aten.mean.default,
    aten.max.default,
    aten.min.default,
}
_SKIPPING_ZEROS = {aten.sum.dim_IntList, aten.sum.default, aten.linalg_vector_norm.default}
"""Reductions that are the same without elements that are 0."""
_NOT_ZERO = {aten.logsumexp.default}
"""Reductions that make something of zeros."""
_VERDICTS = {aten.all.default, aten.any.default, aten.all.dim, aten.any.dim, aten.equal.default}
"""Operators that ask something of all elements, as in `assert (a == b).all()`."""
_STATISTICS = {
    aten.mean.dim,
    aten.var.correction,
    aten.std.correction,
    aten.var_mean.correction,
}
_REMEDY = (
    " (a normalisation in the middle of `forward` divides by the number that it finds: let an `nn.LayerNorm`, an "
    "`nn.RMSNorm` or a module of your own that computes nothing else do it)"
)
RANKED = {
    aten.sort.default: 1,
    aten.sort.stable: 1,
    aten.topk.default: 2,
    aten.kthvalue.default: 2,
    aten.cumsum.default: 1,
    aten.cumprod.default: 1,
    aten.cummax.default: 1,
    aten.cummin.default: 1,
}
"""Operators that look at all elements along one axis and leave the others apart, and the place of that argument."""


def normalise(trace: Trace, labels: Tensor | None, axes: Sequence[int], output: Tensor, func: Any) -> None:
    """Pin what is normalised together with other units."""
    if labels is not None and any(varies(labels, axis) for axis in axes):
        trace.atoms.pin(labels.numpy(), f"`{func.name()}` at {place()} normalises across it and others")
    trace.write(output, labels)


def reduce(trace: Trace, func: Any, labels: Tensor | None, args: Any, outputs: list[Tensor]) -> None:
    """Join, sum or pin the units that a reduction brings together."""
    if labels is None:
        return
    position = 2 if func is aten.linalg_vector_norm.default else 1
    axes = args[position] if len(args) > position and args[position] is not None else list(range(labels.dim()))
    axes = [axes] if isinstance(axes, int) else list(axes) or list(range(labels.dim()))
    mixed = [axis % labels.dim() for axis in axes if mixes(labels, axis)]
    beside = [axis for axis in range(labels.dim()) if axis not in mixed and varies(labels, axis)]
    if mixed and beside:
        # As where directions in (T, B, 2, H) are added: what meets goes together.
        labels = joined(trace, labels, mixed)
    elif mixed and func in _SKIPPING_ZEROS:
        # A sum over all units, which those that are left make smaller: like a product with a matrix of ones.
        trace.summed.append((np.unique(labels.numpy()), f"`{func.name()}` at {place()} sums it and others"))
        return
    elif mixed:
        remedy = _REMEDY if func in _STATISTICS else ""
        trace.atoms.pin(labels.numpy(), f"`{func.name()}` at {place()} reduces across it and others{remedy}")
        return
    if func in _NOT_ZERO:
        trace.shifted.append(np.unique(labels.numpy()))
    for output in outputs:
        if output.is_floating_point():
            trace.write(output, labels.amax(dim=axes, keepdim=output.dim() == labels.dim()))


def ask(trace: Trace, func: Any, tensors: Sequence[Tensor], labels: Sequence[Tensor | None], outputs: Any) -> bool:
    """Follow a question about all elements whose answer decides how the code goes on; pin one that is computed with.

    The code went the same way at all sizes that are compared.

    Returns:
        Whether it is such a question.
    """
    for tensor in tensors:
        asked = trace.answers.get(tensor.untyped_storage().data_ptr())
        if asked is not None and func is not aten._local_scalar_dense.default:
            trace.atoms.pin(asked, f"`{func.name()}` at {place()} computes with an answer about all of them")
    if func not in _VERDICTS:
        return False
    known = [np.unique(label.numpy()) for label in labels if label is not None]
    for output in outputs if known else ():
        trace.answers[output.untyped_storage().data_ptr()] = np.concatenate(known)
    return True


def joined(trace: Trace, labels: Tensor, axes: Sequence[int]) -> Tensor:
    """Labels that were joined along axes, where elements without a unit are padding."""
    highest = labels.amax(dim=list(axes), keepdim=True).expand(labels.size())
    trace.atoms.join(labels.numpy(), highest.numpy())
    return torch.where(labels == 0, labels, highest)


def rank(trace: Trace, func: Any, labels: Tensor | None, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """Sorting, the largest elements or running sums along an axis, along which no two units may meet."""
    if labels is None:
        return
    position = RANKED[func]
    axis = args[position] if len(args) > position else kwargs.get("dim", -1)
    if varies(labels, axis):
        trace.atoms.pin(labels.numpy(), f"`{func.name()}` at {place()} compares it with others")
        return
    units = labels.amax(axis, keepdim=True)
    for output in outputs:
        if output.is_floating_point():
            trace.write(output, units if output.dim() == labels.dim() else units.squeeze(axis))


def _batch_norm(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    labels = trace.read(args[0])
    if labels is not None:
        channels = labels.movedim(1, -1).reshape(-1, labels.size(1)).numpy()
        for tensor in args[1:5]:
            name = trace.parameter_name(tensor)
            if name is not None:
                trace.atoms.join(channels, trace.atoms.axis(name, 0, tensor.numel(), "out"))
    trace.write(outputs[0], labels)


def _layer_norm(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    labels = trace.read(args[0])
    if labels is not None:
        trace.atoms.pin(labels.numpy(), f"the normalisation at {place()} takes its mean over it and others{_REMEDY}")
    trace.write(outputs[0], labels)


def _attention(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """Scaled dot-product attention: the scale depends on the number of features of queries and keys.

    Whole heads, whose features are one unit each, are the same in queries, keys and values.
    """
    heads = outputs[0].size(-3)
    values = trace.read(args[2])
    for tensor in args[:2]:
        labels = trace.read(tensor)
        if labels is None:
            continue
        if varies(labels, labels.dim() - 1):
            trace.atoms.pin(labels.numpy(), f"the attention at {place()} scales by the number of its features")
        elif values is not None:
            trace.atoms.join(_by_head(labels, heads).numpy(), _by_head(values, heads).numpy())
        else:
            trace.atoms.pin(labels.numpy(), f"the attention at {place()} has values of a fixed number of heads")
    if values is not None:
        trace.write(outputs[0], _by_head(values, heads).expand(outputs[0].size()))


def _by_head(labels: Tensor, heads: int) -> Tensor:
    """Of labels (..., h, T, d) those of the first position, (..., heads, 1, d): each for several heads of queries."""
    first = labels.select(-2, 0).unsqueeze(-2)
    return first.repeat_interleave(heads // first.size(-3), dim=-3)


COMBINING: dict[Any, Any] = {
    aten.native_batch_norm.default: _batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_efficient_attention.default: _attention,
}
"""Operator -> its rule, of the trace, arguments and outputs."""
