"""Rules of modules that normalise: what is removed counts on as zeros in their statistics (see `nn.wide_norms`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from compressor.nn.group_norm import INSTANCE_NORMS, WideGroupNorm
from compressor.nn.names import full_name
from compressor.nn.norm import WideLayerNorm
from compressor.nn.own_code import has_own_forward
from compressor.nn.own_norm import WideOwnNorm
from compressor.nn.rms_norm import WideRMSNorm
from compressor.nn.wide_norms import WIDE_NORMS, has_wide_form
from compressor.surgery.trace.state import Normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.own_norm import NormForm
    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace

_LOCALS = ("weight", "bias", "running_mean", "running_var")


def _features(trace: Trace, name: str, module: Any, inputs: Tensor, given: Sequence[Tensor], result: Tensor) -> None:
    """A layer or root mean square normalisation over the last axis."""
    if len(module.normalized_shape) == 1:
        _normalise(trace, name, module, inputs, result, -1)
    elif (labels := trace.read(inputs)) is not None:
        trace.atoms.pin(labels.numpy(), f"`{name}` normalises over several axes")


def _own_axis(
    trace: Trace, name: str, module: WideOwnNorm, inputs: Tensor, given: Sequence[Tensor], result: Tensor
) -> None:
    """What a normalisation of the model's own code has become."""
    _normalise(trace, name, module, inputs, result, module.form.axis)


def _channels(trace: Trace, name: str, module: Any, inputs: Tensor, given: Sequence[Tensor], result: Tensor) -> None:
    """A group or instance normalisation: each group loses the same number of channels, at the same places."""
    if isinstance(module, INSTANCE_NORMS) and inputs.dim() == module._get_no_batch_dim():
        if (labels := trace.read(inputs)) is not None:
            trace.atoms.pin(labels.numpy(), f"`{name}` is given one sample without a batch")
        return
    positions = _normalise(trace, name, module, inputs, result, 1)
    groups = len(positions) if isinstance(module, INSTANCE_NORMS) else _groups(module)
    if len(positions) > groups:
        blocks = positions.reshape(groups, -1)
        fixed = (blocks == 0).any(0)
        trace.atoms.join(blocks, blocks[:1])
        trace.atoms.pin(blocks[:, fixed], f"`{name}` keeps its groups equal, and one holds a fixed channel there")


def _groups(module: nn.GroupNorm | WideGroupNorm) -> int:
    return module.groups if isinstance(module, WideGroupNorm) else module.num_groups


def _normalise(trace: Trace, name: str, module: Any, inputs: Tensor, result: Tensor, axis: int) -> Ids:
    """Bind the parameters to the features along an axis; gives the atoms of these, none if they are not followed."""
    positions = _positions(trace, name, inputs, result, axis)
    if not len(positions):
        return positions
    if has_own_forward(module) and not has_wide_form(module):
        trace.atoms.pin(positions, f"`{name}` is a `{type(module).__name__}` with a `forward` of its own")
    if isinstance(module, WIDE_NORMS) or has_wide_form(module):
        trace.norms[name] = Normalised(positions, axis)
    for local in _LOCALS:
        parameter = getattr(module, local, None)
        if parameter is not None:
            trace.atoms.join(trace.atoms.axis(full_name(name, local), 0, parameter.numel(), "out"), positions)
    return positions


def follow_own(trace: Trace, name: str, form: NormForm, inputs: Tensor, result: Tensor) -> None:
    """A normalisation of the model's own code: it becomes one of ours before it loses features."""
    positions = _positions(trace, name, inputs, result, form.axis)
    if len(positions):
        trace.norms[name] = Normalised(positions, form.axis)


def _positions(trace: Trace, name: str, inputs: Tensor, result: Tensor, axis: int) -> Ids:
    """Hand the labels on; gives the atoms of the features along an axis, none if they are not followed."""
    trace.feedback.follow([inputs], [None], [None], [result])
    labels = trace.read(inputs)
    if labels is None:
        return np.zeros(0, np.int64)
    rows = labels.movedim(axis, -1).reshape(-1, labels.size(axis))
    if bool(((rows == 0).any(0) & (rows != 0).any(0)).any()):
        trace.atoms.pin(labels.numpy(), f"`{name}` takes its mean over it and others")
        return np.zeros(0, np.int64)
    trace.atoms.join(rows.numpy(), rows[:1].numpy())  # as of a learned first position in front of the others
    trace.write(result, labels)
    return rows[0].numpy()


NORMS: dict[type[nn.Module], Any] = {
    **dict.fromkeys((nn.LayerNorm, WideLayerNorm, nn.RMSNorm, WideRMSNorm), _features),
    WideOwnNorm: _own_axis,
    **dict.fromkeys((nn.GroupNorm, WideGroupNorm, *INSTANCE_NORMS), _channels),
}
"""Module -> its rule, of the trace, name, module, inputs, states and outputs."""
