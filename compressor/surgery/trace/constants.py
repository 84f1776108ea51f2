"""Tensors, and axes of tensors, that hold one number over and over: they shrink with the features that they meet.

A state of zeros that the model's code makes is one in all its axes. What arithmetic makes of it and of something that
has one element along an axis (`decay[:, None, None] * state`) still is along that axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.surgery.trace.tables import decoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Constants:
    """What is known of the storages of activations; one that is written into by something else is forgotten."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._whole: set[int] = set()
        self._partly: dict[int, tuple[Tensor, frozenset[int]]] = {}
        """Storage -> a tensor that fills it, and the axes along which it holds one number over and over."""
        self._zero: set[int] = set()
        """Storages of such tensors that hold nothing but 0."""

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether a tensor holds one constant, in all its axes."""
        return tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() in self._whole

    def along(self, tensor: Tensor) -> set[int]:
        """The axes along which a tensor holds one number over and over; an axis of one element is none."""
        if tensor in self:
            return {axis for axis in range(tensor.dim()) if tensor.size(axis) > 1}
        known = self._partly.get(tensor.untyped_storage().data_ptr()) if tensor.layout is torch.strided else None
        view = None if known is None else decoded(tensor, known[0])
        if known is None or view is None:
            return set()
        return {axis for axis, selection in enumerate(view) if selection is not None and selection[0] in known[1]}

    def is_zero(self, tensor: Tensor) -> bool:
        """Whether a constant, or what arithmetic with other things made of one, is 0, as a state at its start is."""
        return bool(self.along(tensor)) and tensor.untyped_storage().data_ptr() in self._zero

    def note(self, outputs: Sequence[Tensor], *, whole: bool, even: frozenset[int] = frozenset()) -> None:
        """An operation gave these tensors.

        Args:
            outputs: What it gave.
            whole: They hold one constant.
            even: The axes along which the first one holds one number over and over, see `even_axes`.
        """
        for output in outputs:
            storage = output.untyped_storage().data_ptr()
            self._partly.pop(storage, None)
            self._zero.discard(storage)
            if (whole or even) and not bool(output.any()):
                self._zero.add(storage)
            if whole:
                self._whole.add(storage)
            else:
                self._whole.discard(storage)
        if even:
            self._partly[outputs[0].untyped_storage().data_ptr()] = (outputs[0], even)

    def even_axes(self, tensors: Sequence[Tensor], output: Tensor) -> frozenset[int]:
        """Axes along which a function of each element gave one number over and over, since all that it took does so."""
        if not output.is_contiguous() or output.numel() * output.element_size() != output.untyped_storage().nbytes():
            return frozenset()
        return frozenset(
            axis
            for axis in range(output.dim())
            if output.size(axis) > 1 and all(self._is_even(tensor, axis - output.dim()) for tensor in tensors)
        )

    def _is_even(self, tensor: Tensor, axis: int) -> bool:
        """Whether a tensor, broadcast, is the same along an axis that is counted from the last one."""
        place = axis + tensor.dim()
        return place < 0 or tensor.size(place) == 1 or tensor.stride(place) == 0 or place in self.along(tensor)
