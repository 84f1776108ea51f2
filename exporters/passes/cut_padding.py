"""Drops padding that is cut off again, as in a step of a convolution whose model pads whole sequences."""

from __future__ import annotations

import onnx_ir as ir

_END = 2**31 - 1
"""From here on an end of a Slice means all."""


class DropCutPadding(ir.passes.InPlacePass):
    """Replaces a Slice that leaves of a Pad exactly what was padded."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        outputs = set(model.graph.outputs)
        slices = [node for node in model.graph if node.op_type == "Slice" and node.outputs[0] not in outputs]
        changed = [_drop(node) for node in slices if node.outputs[0].uses()]
        return ir.passes.PassResult(model, any(changed))


def _drop(node: ir.Node) -> bool:
    pad = None if node.inputs[0] is None else node.inputs[0].producer()
    data = pad.inputs[0] if pad is not None and pad.op_type == "Pad" else None
    if data is None or data.shape is None or not _cuts_off(node, data.shape, _padding(pad, len(data.shape))):
        return False
    ir.convenience.replace_all_uses_with(node.outputs[0], data)
    return True


def _cuts_off(node: ir.Node, shape: ir.Shape, padding: dict[int, tuple[int, int]] | None) -> bool:
    """Whether a Slice cuts off the padding, and nothing else."""
    starts, ends = _integers(node, 1), _integers(node, 2)
    if padding is None or starts is None or ends is None:
        return False
    axes = _integers(node, 3) if _given(node, 3) else list(range(len(starts)))
    steps = _integers(node, 4) if _given(node, 4) else [1] * len(starts)
    if axes is None or steps is None or set(steps) != {1}:
        return False
    left = dict(padding)
    for axis, start, end in zip((axis % len(shape) for axis in axes), starts, ends, strict=True):
        size, (before, behind) = shape[axis], left.pop(axis, (0, 0))
        if not isinstance(size, int):
            return False
        whole = before + size + behind
        first, last = (place + whole if place < 0 else min(place, whole) for place in (start, min(end, _END)))
        if (first, last) != (before, before + size):
            return False
    return not left


def _padding(pad: ir.Node | None, rank: int) -> dict[int, tuple[int, int]] | None:
    """Axis -> entries that a Pad puts in front and behind, where there are any; None if that is not known."""
    if pad is None or pad.attributes.get_string("mode", "constant") != "constant":
        return None
    sizes = _integers(pad, 1)
    axes = _integers(pad, 3) if _given(pad, 3) else list(range(rank))
    if sizes is None or axes is None or min(sizes, default=0) < 0:
        return None
    pairs = zip(sizes[: len(axes)], sizes[len(axes) :], strict=True)
    return {axis % rank: pair for axis, pair in zip(axes, pairs, strict=True) if any(pair)}


def _given(node: ir.Node, place: int) -> bool:
    return len(node.inputs) > place and node.inputs[place] is not None


def _integers(node: ir.Node, place: int) -> list[int] | None:
    """A constant input; None if it is missing or not known."""
    value = node.inputs[place] if _given(node, place) else None
    if value is None or value.const_value is None:
        return None
    numbers: list[int] = value.const_value.numpy().ravel().tolist()
    return numbers
