"""What carries its units on where features of several origins meet element by element, or in a product.

A table has a part in the features along the axis along which these differ, and none if it differs along others alone.
Of features that differ along different axes only one kind can be followed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compressor.surgery.trace.labels import place, varies

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from compressor.surgery.trace.state import Trace


def aligned(
    trace: Trace, tensors: Sequence[Tensor], labels: Sequence[Tensor | None], shape: torch.Size
) -> list[Tensor | None]:
    """The labels of tensors that meet element by element, of tables along the axes along which the others differ."""
    axes = [None if label is None else trace.tables.axes(tensor) for tensor, label in zip(tensors, labels, strict=True)]
    features = [
        label.expand(shape) for label, own in zip(labels, axes, strict=True) if own is None and label is not None
    ]
    differing = {axis for label in features if label.numel() for axis in range(len(shape)) if varies(label, axis)}
    if not differing:
        return list(labels)
    found: list[Tensor | None] = []
    for label, own in zip(labels, axes, strict=True):
        if label is None or own is None:
            found.append(label)
            continue
        fitting = [k for k, axis in enumerate(own) if axis is not None and k + len(shape) - len(own) in differing]
        if not fitting:
            trace.atoms.pin(label.numpy(), f"at {place()} it is combined with features along another axis")
        found.append(trace.tables.along(own, fitting[-1]) if fitting else None)
    return found


def of_one_axis(trace: Trace, present: Sequence[Tensor]) -> list[Tensor]:
    """Labels of one shape without those that differ along other axes than the rest, which stay.

    As in the product of each channel with each place of a state: what only a parameter holds gives way, else the fewer.
    """
    left = [(part, {axis for axis in range(part.dim()) if varies(part, axis)}) for part in present]
    while True:
        apart = [
            (first, second) for first, axes in left for second, others in left if axes and others and not axes & others
        ]
        if not apart:
            return [part for part, _ in left]
        loser = min(apart[0], key=lambda part: weight(trace, part))
        trace.atoms.pin(loser.numpy(), f"at {place()} it is combined with features along another axis")
        left = [(part, axes) for part, axes in left if part is not loser]


def weight(trace: Trace, labels: Tensor) -> tuple[bool, int]:
    """Of two that cannot both be followed the larger is: features that a layer makes, then the more of them."""
    atoms = trace.atoms
    groups = np.unique(atoms.roots(labels.numpy()))
    groups = groups[groups != 0]
    made = [atoms.roots(own) for key, own in atoms.axes.items() if atoms.roles[key] != "read"]
    return bool(made) and bool(np.isin(groups, np.concatenate(made)).any()), len(groups)
