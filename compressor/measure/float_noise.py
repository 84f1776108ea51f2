"""How far a model's own outputs are off because of the precision that it computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from compressor.measure.precisions import in_float16, in_float64
from compressor.report import Noise, OutputNoise
from compressor.task.fidelity import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from compressor.task.contract import Inputs

_MULTIPLES = {"float32": 8.0, "float16": 4.0}
"""How much further off than the model itself a file may be. In float32 other libraries' exp and tanh are some bits
worse than PyTorch's; float16 is computed here as in the file."""
_MOST_WEIGHTS = 2**28
"""Above, a copy in float64 takes more than 2 GiB, and nothing is measured."""


def measure(
    model: nn.Module, inputs: Iterable[Inputs], precision: Literal["float32", "float16"] = "float32"
) -> Noise | None:
    """The noise of a float32 model: against itself in float64; or that of float16, against itself in float32.

    Args:
        model: In evaluation mode, on the CPU; it is not changed.
        inputs: Of several calls; the worst counts.
        precision: Of the file.

    Returns:
        One entry for each output; None if the model does not run in the other precision, is finite elsewhere in it, or
        is too large for a copy.
    """
    if sum(parameter.numel() for parameter in model.parameters()) > _MOST_WEIGHTS:
        return None
    found: list[OutputNoise] = []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            other = in_float64(model) if precision == "float32" else in_float16(model)
            for call in inputs:
                parts = _between(_flat(model, call), _flat(other, call))
                found = parts if not found else [_worse(*pair) for pair in zip(found, parts, strict=True)]
    except Exception:  # whatever the model's code raises in a precision that it was not written for
        return None
    return Noise(precision=precision, outputs=tuple(found), multiple=_MULTIPLES[precision]) if found else None


def _flat(forward: Callable[..., Any], inputs: Inputs) -> list[Tensor]:
    return tensors_of(forward(*(part.clone() for part in inputs)))


def _between(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[OutputNoise]:
    return [_of_output(one.double(), other.double()) for one, other in zip(first, second, strict=True)]


def _of_output(one: Tensor, other: Tensor) -> OutputNoise:
    """Raises `ValueError` if they are finite in different places."""
    finite = one.isfinite() & other.isfinite()
    if not bool((finite | (one == other) | (one.isnan() & other.isnan())).all()):
        raise ValueError
    off, size = (one - other)[finite].abs(), other[finite].abs()
    if not off.numel():
        return OutputNoise(largest=0.0, rms=0.0, scale=0.0)
    return OutputNoise(largest=float(off.max()), rms=float(off.square().mean().sqrt()), scale=float(size.max()))


def _worse(one: OutputNoise, other: OutputNoise) -> OutputNoise:
    return OutputNoise(
        largest=max(one.largest, other.largest), rms=max(one.rms, other.rms), scale=max(one.scale, other.scale)
    )
