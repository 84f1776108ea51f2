"""Whether a model with something removed gives what the original gives with the same things silenced."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compressor.errors import SurgeryError, first_line
from compressor.nn.recurrent.states import UnevenStatesError

if TYPE_CHECKING:
    from collections.abc import Iterator

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest |smaller - zeroed| / max(1, |zeroed|) by dtype; sums are taken in another order after the removal."""

_FIXED = (
    "a size may be fixed in the model's code: use `-1`, `x.shape` or the module's own `hidden_size` there; the model "
    "is untouched"
)
_UNEVEN = (
    "with `scope: layer` and one `ratio` or `count` all layers and directions of a module keep the same size; or "
    "change that line; the model is untouched"
)


@contextmanager
def evaluating_on_cpu(model: nn.Module) -> Iterator[nn.Module]:
    """The model itself if it lies on the CPU (a copy would double the memory), as it was again afterwards."""
    if any(tensor.device.type != "cpu" for tensor in [*model.parameters(), *model.buffers()]):
        yield copy.deepcopy(model).cpu().eval()
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes.items():
            module.training = training


def forward(model: nn.Module, inputs: tuple[Tensor, ...], what: str, *, hint: str = _FIXED) -> list[Tensor]:
    """All tensors that the model gives for these inputs.

    Raises:
        SurgeryError: It cannot run; the message calls it the `what` model and names the line.
    """
    try:
        with torch.no_grad():
            outputs = model(*inputs)
    except Exception as error:
        uneven = isinstance(error, UnevenStatesError)
        raise SurgeryError(
            f"the {what} model cannot run: {error if uneven else first_line(error)} ({_where(error)})",
            hint=_UNEVEN if uneven else hint,
        ) from error
    return [part for part in tree_flatten(outputs)[0] if isinstance(part, Tensor)]


def check_training(
    before: nn.Module, example: tuple[Tensor, ...], smaller: nn.Module, narrowed: tuple[Tensor, ...]
) -> None:
    """Refuse a smaller model that cannot run in training mode on `narrowed` if the original can on `example`.

    What only `if self.training` reaches, such as an auxiliary head, is seen by no trace in evaluation mode. Both models
    are left as they were.

    Raises:
        SurgeryError: It cannot; the message names the line.
    """
    problem = _in_training(smaller, narrowed)
    if problem is not None and _in_training(before, example) is None:
        raise SurgeryError(
            f"in training the smaller model cannot run: {first_line(problem)} ({_where(problem)}); what only training "
            "reaches is not followed",
            hint="let `forward` compute it in evaluation mode too; the model is untouched",
        )


def _in_training(model: nn.Module, example: tuple[Tensor, ...]) -> Exception | None:
    """What a model raises in training mode."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.train()(*example)
    except Exception as error:
        return error
    finally:
        for module, training in modes.items():
            module.training = training
        for buffer, value in buffers:
            buffer.copy_(value)
    return None


def _where(error: Exception) -> str:
    """The innermost line of the user's model that the error passed through."""
    ours_and_torch = (str(torch.__path__[0]), str(Path(__file__).parents[1]))
    where, traceback = "in the model", error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(ours_and_torch):
            where = f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}, in `{code.co_name}`"
        traceback = traceback.tb_next
    return where


def check_agreement(
    outputs: list[Tensor],
    expected: list[Tensor],
    example: tuple[Tensor, ...],
    *,
    what: str = "units",
    hint: str | None = None,
    tolerance: float | None = None,
) -> None:
    """Compare the outputs of the smaller model with those of the original whose `what` are silenced.

    Raises:
        SurgeryError: They differ by more than `tolerance`, or by more than `TOLERANCE` of their type.
    """
    shapes = [tuple(part.shape) for part in example]
    if [part.shape for part in outputs] != [part.shape for part in expected]:
        raise SurgeryError(
            f"the smaller model's outputs have other shapes at inputs of shapes {shapes}",
            hint="the model is untouched",
        )
    for index, (new, old) in enumerate(zip(outputs, expected, strict=True)):
        if not old.is_floating_point() or not old.numel():
            continue
        error = float(((new - old).abs() / old.abs().clamp(min=1.0)).max())
        if not error <= (TOLERANCE[old.dtype] if tolerance is None else tolerance):
            raise SurgeryError(
                f"output {index} of the smaller model differs by {error:.2g} from the original with the same {what} "
                f"silenced, at inputs of shapes {shapes}: this topology is not handled yet",
                hint=f"{hint}; the model is untouched" if hint else "the model is untouched",
            )
