"""Training batches of any form as pairs (inputs, target)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.errors import TaskError
from compressor.task.signature import Call, as_call

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("input", "target", "ignore")
"""Words of `Task.batch_parts`."""


def split(batch: Any, parts: Sequence[str] | None, target: str | None) -> tuple[Call, Any]:
    """The call of the model and the target of one batch.

    Args:
        batch: (inputs, target), a list of the same, a dictionary, or what `parts` says.
        parts: What each element of a batch is: `input` (several become several arguments), `target`, `ignore`.
        target: The key of the target in batches that are dictionaries; all other entries are keyword arguments.

    Raises:
        TaskError: The batch is of another form; the hint says how to describe it.
    """
    if isinstance(batch, Mapping):
        return _from_mapping(batch, target)
    if not isinstance(batch, (tuple, list)):
        raise TaskError(
            f"`batches` must give pairs (inputs, target), not a {type(batch).__name__}",
            hint="yield (inputs, target); a target that the loss does not need may be None",
        )
    if parts is None:
        if len(batch) != 2:
            raise TaskError(
                f"`batches` gives {len(batch)} elements, not the pair (inputs, target)",
                hint='say what each of them is, such as `batch_parts = ("input", "input", "target", "ignore")`',
            )
        return as_call(batch[0]), as_tensors(batch[1])
    if len(parts) != len(batch):
        raise TaskError(f"`batch_parts` names {len(parts)} elements, but `batches` gives {len(batch)}")
    sorted_out = {word: [part for part, kind in zip(batch, parts, strict=True) if kind == word] for word in PARTS}
    inputs, targets = sorted_out["input"], sorted_out["target"]
    call = as_call(inputs[0]) if len(inputs) == 1 else Call(*inputs)
    return call, as_tensors(targets[0] if len(targets) == 1 else tuple(targets))


def _from_mapping(batch: Mapping[Any, Any], target: str | None) -> tuple[Call, Any]:
    if target is None:
        raise TaskError(
            f"`batches` gives dictionaries ({', '.join(f'`{name}`' for name in batch)}), and the task does not say "
            "which entry is the target",
            hint='name it, such as `target = "labels"`; the others are keyword arguments of the model',
        )
    if target not in batch:
        raise TaskError(f"`batches` gives no `{target}`; it gives {', '.join(f'`{name}`' for name in batch)}")
    return Call(**{name: part for name, part in batch.items() if name != target}), as_tensors(batch[target])


def difference(part: Tensor, kind: tuple[torch.dtype, tuple[int, ...]], axes: Mapping[int, str]) -> str:
    """How a tensor of a batch is unlike the example's, as the end of a sentence; empty if it is not.

    Args:
        part: The tensor.
        kind: Type and shape of the example's.
        axes: The open axes, whose sizes may differ.
    """
    dtype, shape = kind
    if part.dtype != dtype:
        return f"in {_plain(part.dtype)}, `example` in {_plain(dtype)}"
    if part.dim() != len(shape):
        return f"with {part.dim()} axes, `example` with {len(shape)}"
    for axis, (size, expected) in enumerate(zip(part.shape, shape, strict=True)):
        if not size:
            return f"of shape {tuple(part.shape)}, which holds nothing"
        if axis not in axes and size != expected:
            return f"of size {size} along axis {axis}, `example` of size {expected}"
    if part.is_floating_point() and not bool(part.isfinite().all()):
        return "with values that are not finite"
    return ""


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def as_tensors(value: Any) -> Any:
    """The same with tensors instead of NumPy arrays."""
    return pytree.tree_map(
        lambda part: torch.from_numpy(np.ascontiguousarray(part)) if isinstance(part, np.ndarray) else part, value
    )
