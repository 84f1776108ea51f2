"""Rounding as part of training: forward and backward see rounded weights, the optimizer changes the ones behind them.

The gradient at the rounded weights is applied to the exact ones (straight-through estimator; Bengio et al.,
arXiv 1308.3432, section 4). Weights are swapped in place around each batch rather than computed by a parametrization:
recurrent layers keep their weights in one flat buffer, which a parametrization would bypass, and at the end there is
nothing to take away.

Steps (scales) may be learned with the weights: then a block clips as much as training wants, and no longer at its
largest weight (Learned Step Size Quantization; Esser et al., arXiv 1902.08153). They may start from a rounding that is
known, with its integers.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.integers import BLOCK, block_of
from compressor.nn.weight_matrices import weight_matrices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Precision = Literal["int8", "int4", "mixed"]
HALF = 16
"""Bits of a matrix that is only rounded to float16."""
_BITS: dict[Precision, int] = {"int8": 8, "int4": 4, "mixed": 8}
"""Those of a matrix for which no others were chosen."""
_STEP = "learned_step_"
"""And a number: the names under which a model holds steps, so that whatever keeps its weights keeps these too."""
_SHARES = tuple(1.0 - 0.05 * step for step in range(11))
"""Steps that are tried at the start, in parts of that of the largest weight."""


@dataclass(frozen=True)
class Start:
    """A matrix as it is rounded before training."""

    weight: Tensor
    """(N, K), integers times scales."""
    scale: Tensor
    """(N, groups)."""


def rounded(weight: Tensor, precision: Literal["int8", "int4"], block: int = BLOCK) -> Tensor:
    """Symmetric rounding of a matrix (N, K) as the exporter does it: scale * clip(round(weight / scale)).

    Args:
        weight: One row an output.
        precision: `int8`: scale = max |row| / 127. `int4`: the same with 7 for each `block` values of a row.
        block: Of 4 bits.
    """
    return rounded_to_bits(weight, 8, weight.shape[1]) if precision == "int8" else rounded_to_bits(weight, 4, block)


def rounded_to_bits(weight: Tensor, bits: int, block: int) -> Tensor:
    """The same for any number of bits: scale = max |block| / (2^(bits - 1) - 1).

    Args:
        weight: One row an output (N, K).
        bits: 2 to 8.
        block: Weights of a row with a common scale; K for one a row.
    """
    padded = nn.functional.pad(weight, (0, -weight.shape[1] % block))
    blocks = padded.unflatten(1, (-1, block))  # (N, blocks, block)
    return _rounded(blocks, (1 << (bits - 1)) - 1).flatten(1)[:, : weight.shape[1]]


def _rounded(weight: Tensor, largest: int) -> Tensor:
    peak = weight.abs().amax(-1, keepdim=True)
    scale = _as_stored(torch.where(peak > 0, peak / largest, torch.ones_like(peak)))
    return _to_grid(weight, scale, largest)


def _to_grid(weight: Tensor, scale: Tensor, largest: int) -> Tensor:
    """The nearest integers times scales; computed in place, since new memory costs more than the arithmetic."""
    return (weight / scale).round_().clamp_(-largest, largest).mul_(scale)


def _as_stored(scale: Tensor) -> Tensor:
    """The exporter stores scales as float16 if they are in its range."""
    half = torch.finfo(torch.float16)
    inside = (scale >= half.tiny) & (scale <= half.max)
    return torch.where(inside, torch.where(inside, scale, 1.0).half().to(scale.dtype), scale)


def rounded_parameters(model: nn.Module, precision: Precision) -> dict[str, tuple[nn.Parameter, int]]:
    """Matrices of recurrent layers, Linear, multi-head attention and Embedding with their bits; the latter in 8."""
    return {
        name: (one.parameter, _BITS[precision] if one.use == "product" else 8)
        for name, one in weight_matrices(model).items()
        if one.use != "convolution" and one.parameter.dim() == 2
    }


class Steps:
    """Learned steps of one matrix: step = start * exp(p) for each block, p what is trained.

    LSQ trains the step itself with gradients scaled by the block's size (section 2.2 of the paper). An optimizer like
    Adam undoes such factors, and steps are some thousandths: their logarithm learns at the rate of the weights.
    """

    def __init__(self, weight: Tensor, bits: int, scale: Tensor | None = None) -> None:
        """Start from scales (N, groups), or else from the clipping with the least squared error of the weights."""
        self.largest = (1 << (bits - 1)) - 1
        self.block = block_of(bits, weight.shape[1])
        blocks = self._blocks(weight.detach())
        self.start = _least_error(blocks, self.largest) if scale is None else scale.to(weight).unsqueeze(-1)
        """Steps at the start (N, G, 1)."""
        self.exponent = nn.Parameter(torch.zeros_like(self.start))
        """What is trained (N, G, 1)."""

    def of(self, weight: Tensor) -> Tensor:
        """The weights (N, K) as they are rounded."""
        whole = _to_grid(self._blocks(weight.detach()), self._scale(), self.largest)
        return whole.flatten(1)[:, : weight.shape[1]]

    def learn(self, weight: Tensor, gradient: Tensor) -> None:
        r"""Add to the gradient of the exponents; that at the exact weights is the one at the rounded weights.

        With v = w / s and L the largest integer, of a gradient g at the rounded weights:

        .. math::
            \frac{d}{dw} = g, \quad \frac{d}{dp} = s \sum g \, (\mathrm{round}(v) - v \text{ or } \pm L \text{ beyond})

        The second is equation 3 of the paper for p. The first differs from its equation 5, which gives weights beyond
        L no gradient: they could not come back, and training that makes weights grow stands still.

        Args:
            weight: The exact weights (N, K).
            gradient: At the rounded ones (N, K).
        """
        scale = self._scale()
        value = self._blocks(weight.detach()) / scale
        slope = value.round().clamp_(-self.largest, self.largest)
        slope -= value.masked_fill_(value.abs() > self.largest, 0.0)
        total = slope.mul_(self._blocks(gradient)).sum(-1, keepdim=True) * scale
        self.exponent.grad = total if self.exponent.grad is None else self.exponent.grad + total

    def _scale(self) -> Tensor:
        return _as_stored(self.start * self.exponent.detach().exp())

    def _blocks(self, weight: Tensor) -> Tensor:
        """(N, K) as (N, G, block), padded with zeros."""
        blocks: Tensor = nn.functional.pad(weight, (0, -weight.shape[1] % self.block)).unflatten(1, (-1, self.block))
        return blocks


def _least_error(blocks: Tensor, largest: int) -> Tensor:
    """Steps (N, G, 1) of blocks (N, G, block) with the least squared error, in parts of max |weight| / largest."""
    peak = blocks.abs().amax(-1, keepdim=True)
    usual = torch.where(peak > 0, peak / largest, torch.ones_like(peak))
    best, least = _as_stored(usual), torch.full_like(usual, float("inf"))
    for share in _SHARES:
        scale = _as_stored(share * usual)
        error = _to_grid(blocks, scale, largest).sub_(blocks).square_().sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


class Rounding:
    """Swaps the matrices of a model for rounded ones, for a while or for good."""

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        keep_float: Sequence[str] = (),
        *,
        learn_steps: bool = False,
        bits: Mapping[str, int] = MappingProxyType({}),
        starts: Mapping[str, Start] = MappingProxyType({}),
    ) -> None:
        """Find them.

        Args:
            model: What is trained.
            precision: Of all matrices but tables, which have 8 bits.
            keep_float: Globs of parameters that are not rounded.
            learn_steps: Steps are trained too; by default they are those of the largest weights.
            bits: Of matrices that have others than `precision` says: 2 to 8, or 16 for float16.
            starts: Of matrices whose learned steps start there, with the weights; the others start with their own
                weights and the clipping with the least error.

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
            name: (parameter, bits.get(name, usual))
            for name, (parameter, usual) in every.items()
            if not any(fnmatchcase(name, pattern) for pattern in keep_float)
        }
        if not self.parameters:
            raise MethodError(
                f"`keep_float` leaves nothing to round of {_some(every)}", hint="leave `quantize` out, or keep fewer"
            )
        self._model = model
        for name, start in starts.items():
            with torch.no_grad():
                self.parameters[name][0].copy_(start.weight)
        self.steps = {
            name: Steps(parameter, count, starts[name].scale if name in starts else None)
            for name, (parameter, count) in self.parameters.items()
            if learn_steps and count != HALF
        }
        """Learned steps, by the names of their matrices: parameters of the model until `finish`."""
        for number, steps in enumerate(self.steps.values()):
            model.register_parameter(f"{_STEP}{number}", steps.exponent)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block the weights are rounded; afterwards they are what they were."""
        exact = {name: parameter.detach().clone() for name, (parameter, _) in self.parameters.items()}
        self.keep()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, (parameter, _) in self.parameters.items():
                    parameter.copy_(exact[name])
                    if name in self.steps and parameter.grad is not None:
                        self.steps[name].learn(parameter, parameter.grad)

    @torch.no_grad()
    def keep(self) -> None:
        """Round the weights."""
        for name, (parameter, bits) in self.parameters.items():
            parameter.copy_(self._rounded(name, parameter, bits))

    def _rounded(self, name: str, weight: Tensor, bits: int) -> Tensor:
        if name in self.steps:
            return self.steps[name].of(weight)
        if bits == HALF:
            return _to_half(weight)
        return rounded_to_bits(weight, bits, block_of(bits, weight.shape[1]))

    def finish(self) -> None:
        """Round the weights for good, and take the steps out of the model."""
        self.keep()
        for number in range(len(self.steps)):
            delattr(self._model, f"{_STEP}{number}")


def _to_half(weight: Tensor) -> Tensor:
    """As float16 holds it; a matrix that is beyond its range stays as it is."""
    half = weight.half().to(weight.dtype)
    return half if bool(half.isfinite().all()) else weight


def _some(names: Iterable[str], most: int = 6) -> str:
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(f"`{name}`" for name in known[:most]) + more
