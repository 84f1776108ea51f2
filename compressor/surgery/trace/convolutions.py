"""Rule of convolutions, with groups and transposed ones too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compressor.surgery.trace.elementwise import unknown
from compressor.surgery.trace.labels import place, varies
from compressor.surgery.trace.parts import join_blocks

if TYPE_CHECKING:
    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace

aten = torch.ops.aten


def _convolution(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    inputs, weight, bias, *_, transposed, _, groups = args
    name = trace.parameter_name(weight)
    labels = trace.read(inputs)
    if name is None or trace.decode(weight, name) is None:
        unknown(trace, aten.convolution.default, [inputs, weight], [labels])
        return
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    produced = trace.atoms.axis(name, out_axis, weight.size(out_axis), "out")
    consumed = trace.atoms.axis(name, in_axis, weight.size(in_axis), "in")
    channels = None if labels is None else labels.movedim(1, -1).reshape(-1, labels.size(1)).numpy()
    if labels is not None and any(varies(labels, axis) for axis in range(2, labels.dim())):
        trace.atoms.pin(labels.numpy(), f"the convolution at {place()} slides over it")
    elif groups > 1:
        produced = _grouped(trace, channels, produced, consumed, groups, transposed=transposed)
    elif channels is not None:
        trace.atoms.join(channels, consumed)
    if len(produced) == outputs[0].size(1):
        shape = [1, -1] + [1] * (outputs[0].dim() - 2)
        trace.write(outputs[0], torch.from_numpy(produced).view(shape).expand(outputs[0].size()))
    if bias is not None:
        bias_name = trace.parameter_name(bias)
        if bias_name is not None and len(produced) == bias.numel():
            trace.atoms.join(trace.atoms.axis(bias_name, 0, bias.numel(), "out"), produced)


def _grouped(trace: Trace, channels: Ids | None, produced: Ids, consumed: Ids, groups: int, *, transposed: bool) -> Ids:
    """Bind the channels of a convolution with groups; gives the atoms of its outputs.

    With one channel in each group whole groups go: the channel and all that is made of it. With more, each group loses
    the same number of channels at the same places, of its inputs and of its outputs.

    Args:
        trace: What is known.
        channels: Atoms (N, channels) of the inputs; None if they are fixed.
        produced: Atoms of the weight's output axis: of all channels, or of those of one group if it is transposed.
        consumed: Of its input axis: of those of one group, or of all if it is transposed.
        groups: How many.
        transposed: A transposed convolution.
    """
    outputs = np.tile(produced, groups) if transposed else produced
    inputs = consumed if transposed else np.tile(consumed, groups)
    whole = len(inputs) == groups and (not transposed or len(produced) == 1)
    if whole:
        owned = consumed if transposed else produced
        if channels is None or not channels.all():
            trace.atoms.pin(owned, f"the convolution at {place()} has one group for each of its inputs, which stay")
        made = owned.reshape(groups, -1)
        trace.atoms.join(made, made[:, :1])
        if channels is not None:
            trace.atoms.join(channels, made[:, 0])
        return owned
    if len(inputs) == groups:
        trace.atoms.pin(consumed, f"the transposed convolution at {place()} keeps its groups")
    join_blocks(trace, inputs, groups)
    join_blocks(trace, outputs, groups)
    if channels is not None:
        fixed = (channels == 0).any(0)
        trace.atoms.pin(inputs[fixed], f"the convolution at {place()} takes a fixed channel in there")
        trace.atoms.join(channels, inputs)
    return outputs


CONVOLUTIONS: dict[Any, Any] = {aten.convolution.default: _convolution}
"""Operator -> its rule, of the trace, arguments and outputs."""
