"""Rounding as part of training: forward and backward see rounded weights, the optimizer changes the ones behind them.

The gradient at the rounded weights is applied to the exact ones (straight-through estimator; Bengio et al.,
arXiv 1308.3432, section 4). Weights are swapped in place around each batch rather than computed by a parametrization:
recurrent layers keep their weights in one flat buffer, which a parametrization would bypass, and at the end there is
nothing to take away.
"""

from __future__ import annotations

from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.recurrent.layers import RECURRENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Precision = Literal["int8", "int4"]
BLOCK = 32
"""Weights of a row with a common scale in 4 bits, the exporter's default."""
_LARGEST = {"int8": 127, "int4": 7}


def rounded(weight: Tensor, precision: Precision, block: int = BLOCK) -> Tensor:
    """Symmetric rounding of a matrix (N, K) as the exporter does it: scale * clip(round(weight / scale)).

    Args:
        weight: One row an output.
        precision: `int8`: scale = max |row| / 127. `int4`: the same with 7 for each `block` values of a row.
        block: Of 4 bits.
    """
    if precision == "int8":
        return _rounded(weight, 127)
    padded = nn.functional.pad(weight, (0, -weight.shape[1] % block))
    blocks = padded.unflatten(1, (-1, block))  # (N, blocks, block)
    return _rounded(blocks, _LARGEST[precision]).flatten(1)[:, : weight.shape[1]]


def _rounded(weight: Tensor, largest: int) -> Tensor:
    peak = weight.abs().amax(-1, keepdim=True)
    scale = torch.where(peak > 0, peak / largest, torch.ones_like(peak))
    half = torch.finfo(torch.float16)
    inside = (scale >= half.tiny) & (scale <= half.max)  # the exporter stores these as float16
    scale = torch.where(inside, torch.where(inside, scale, 1.0).half().to(scale.dtype), scale)
    return (weight / scale).round().clamp(-largest, largest) * scale


def rounded_parameters(model: nn.Module, precision: Precision) -> dict[str, tuple[nn.Parameter, Precision]]:
    """Matrices of recurrent layers, Linear, multi-head attention and Embedding; the latter in 8 bits in any case."""
    parameters: dict[str, tuple[nn.Parameter, Precision]] = {}
    known: set[int] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() != 2 or id(parameter) in known:
                continue
            if isinstance(module, nn.Embedding):
                chosen: Precision = "int8"
            elif isinstance(module, (*RECURRENT, nn.Linear, nn.MultiheadAttention)):
                chosen = precision
            else:
                continue
            known.add(id(parameter))
            parameters[f"{path}.{name}" if path else name] = (parameter, chosen)
    return parameters


class Rounding:
    """Swaps the matrices of a model for rounded ones, for a while or for good."""

    def __init__(self, model: nn.Module, precision: Precision, keep_float: Sequence[str] = ()) -> None:
        """Find them.

        Args:
            model: What is trained.
            precision: Of all matrices but tables, which have 8 bits.
            keep_float: Globs of parameters that are not rounded.

        Raises:
            MethodError: There are none, none is left, or a glob fits none.
        """
        every = rounded_parameters(model, precision)
        if not every:
            raise MethodError(
                f"`quantize: {precision}`: the model has no matrix of a recurrent layer, Linear or Embedding",
                hint="leave `quantize` out",
            )
        for pattern in keep_float:
            if not any(fnmatchcase(name, pattern) for name in every):
                raise MethodError(
                    f"`keep_float`: {pattern!r} fits no matrix that would be rounded", hint=f"there are {_some(every)}"
                )
        self.parameters = {
            name: item for name, item in every.items() if not any(fnmatchcase(name, pattern) for pattern in keep_float)
        }
        if not self.parameters:
            raise MethodError(
                f"`keep_float` leaves nothing to round of {_some(every)}", hint="leave `quantize` out, or keep fewer"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block the weights are rounded; afterwards they are what they were."""
        exact = [parameter.detach().clone() for parameter, _ in self.parameters.values()]
        self.keep()
        try:
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), weight in zip(self.parameters.values(), exact, strict=True):
                    parameter.copy_(weight)

    @torch.no_grad()
    def keep(self) -> None:
        """Round the weights for good."""
        for parameter, precision in self.parameters.values():
            parameter.copy_(rounded(parameter, precision))


def _some(names: Iterable[str], most: int = 6) -> str:
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(f"`{name}`" for name in known[:most]) + more
