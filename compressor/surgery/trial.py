"""Runs a changed model once, before a step hands it on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import MethodError, first_line
from compressor.nn.attention.plain import plain_attention

if TYPE_CHECKING:
    from torch import Tensor, nn


def run_once(model: nn.Module, inputs: tuple[Tensor, ...], device: torch.device, *, problem: str, hint: str) -> Any:
    """The outputs of a copy of the model in evaluation mode.

    Args:
        model: Left as it is.
        inputs: On any device.
        device: Where it runs.
        problem: What cannot be done if it does not run, such as "`rnn` cannot be replaced".
        hint: What the user can do about it.

    Raises:
        MethodError: It does not run; the message starts with `problem`.
    """
    try:
        with torch.no_grad(), plain_attention():
            return copy.deepcopy(model).to(device).eval()(*(part.to(device) for part in inputs))
    except MethodError as error:
        raise MethodError(f"{problem}: {error.message}", hint=error.hint) from error
    except Exception as error:
        raise MethodError(f"{problem}: the model then raises {first_line(error)}", hint=hint) from error
