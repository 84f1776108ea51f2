"""What every export begins with: a folder beside the file, a copy of the model, and one run of it."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING

from compressor.errors import CompressorError, ExportError
from compressor.files import writing
from compressor.files.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from compressor.task.contract import Task


@contextlib.contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, gone afterwards; entered first, so that an unwritable folder shows at once."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Scratch(path.parent, f".{path.name}.")
    try:
        yield folder.path
    finally:
        folder.close()


def private_copy(model: nn.Module, *, same_parameters: bool = False) -> nn.Module:
    """A copy on the CPU in evaluation mode; raises `ExportError` if `model` cannot be copied or is not float32.

    `same_parameters`: parameters that are on the CPU are the model's own, for what reads them only.
    """
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(
                f"`{name}` is {str(tensor.dtype).removeprefix('torch.')}, and only float32 models are exported",
                hint="call `.float()` on the model in the task's `model`",
            )
    try:
        kept = [part for part in model.parameters() if same_parameters and part.device.type == "cpu"]
        return copy.deepcopy(model, {id(part): part for part in kept}).cpu().eval()
    except Exception as error:
        raise ExportError(
            f"the model cannot be copied: {type(error).__name__}: {error}",
            hint="`copy.deepcopy(model)` must work; keep no computed tensors, files or locks as attributes",
        ) from error


def check_length(task: Task, length: int) -> None:
    """Raise `ExportError` if the task has no sequences of this length."""
    if not task.min_length <= length <= task.max_length:
        raise ExportError(
            f"length is {length}, but the task's sequences have {task.min_length} to {task.max_length} positions",
            hint="give a `length` among these",
        )


def check_outputs(model: nn.Module, inputs: tuple[Tensor, ...], task: Task) -> None:
    """Run the model once; raises `ExportError` if it fails or gives other outputs than the task names."""
    import torch
    from torch import Tensor

    from compressor.nn.attention.plain import plain_attention

    shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in zip(task.inputs, inputs, strict=True))
    try:
        with torch.no_grad(), plain_attention():
            outputs = model(*inputs)
    except CompressorError:
        raise
    except Exception as error:
        raise ExportError(
            f"the model fails on the task's example ({shapes}): {type(error).__name__}: {error}",
            hint="`example` must give what `forward` takes, in the order of `inputs`",
        ) from error
    flat = (outputs,) if isinstance(outputs, Tensor) else outputs
    if not isinstance(flat, tuple) or not all(isinstance(part, Tensor) for part in flat):
        raise ExportError(
            f"the model gives a {type(outputs).__name__}; only a tensor or a flat tuple of tensors can be exported",
            hint="wrap the model in a module whose `forward` returns the tensors that the phone needs",
        )
    if len(flat) != len(task.outputs):
        raise ExportError(
            f"the model gives {len(flat)} outputs, but the task's `outputs` names {len(task.outputs)}",
            hint="name every tensor that `forward` returns, in order",
        )
