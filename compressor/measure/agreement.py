"""Outputs of a file against those that it should give, element by element."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.report import ParityPoint

if TYPE_CHECKING:
    from compressor.report import Noise, OutputNoise

_SMALL_PART = {"float32": 0.01, "float16": 0.05}
"""Of the largest output: more than that is no noise that a file may be held to."""
_DIGITS = 100.0
"""An output that is at most `atol` must be right to this part of its largest value."""


@dataclass(frozen=True)
class Tolerances:
    """What may differ: |file - torch| <= atol + rtol * |torch|, or a small multiple of the model's own noise."""

    atol: float
    rtol: float
    noise: Noise | None = None

    def hold(self, index: int, differs: Tensor, scale: Tensor) -> bool:
        """Whether output `index` agrees, from |file - torch| and |torch|, both in double precision."""
        within = bool((differs <= self.atol + self.rtol * scale).all())
        if self.noise is None or not _is_small(self.noise, own := self.noise.outputs[index]):
            return within
        times = self.noise.multiple
        if not within:
            rms = float(differs.square().mean().sqrt())
            return largest(differs) <= times * own.largest and rms <= times * own.rms
        # an `atol` that would let a file of zeros pass proves nothing
        return own.scale > self.atol or largest(differs) <= max(own.scale / _DIGITS, times * own.largest)

    @property
    def absolute(self) -> float:
        """The largest difference from 0 that may pass."""
        if self.noise is None:
            return self.atol
        small = (own for own in self.noise.outputs if _is_small(self.noise, own))
        return max([self.atol, *(self.noise.multiple * own.largest for own in small)])


def _is_small(noise: Noise, own: OutputNoise) -> bool:
    return noise.multiple * own.largest <= _SMALL_PART[noise.precision] * own.scale


def compare(
    expected: tuple[Tensor, ...],
    actual: tuple[Tensor, ...],
    *,
    batch: int,
    length: int,
    tolerances: Tolerances,
    reference: str = "PyTorch",
) -> ParityPoint:
    """Outputs of the file against those that it should give, which are called `reference` in notes.

    NaN must be in the same places; integers and booleans must be equal.
    """
    note = _mismatch(expected, actual, reference)
    if note:
        return wrong(batch, length, note)
    absolute = relative = size = needed = 0.0
    within = True
    for index, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
        differs, scale = _difference(wanted, got)
        absolute = max(absolute, largest(differs))
        relative = max(relative, largest(torch.where(differs == 0, 0.0, differs / (scale + tolerances.atol))))
        size = max(size, largest(scale))
        needed = max(needed, largest(differs - tolerances.rtol * scale))
        exact = not wanted.is_floating_point()
        within = within and (largest(differs) == 0.0 if exact else tolerances.hold(index, differs, scale))
    return ParityPoint(
        batch=batch,
        length=length,
        max_absolute=absolute,
        max_relative=relative,
        within=within,
        scale=size,
        needed=needed,
    )


def wrong(batch: int, length: int, note: str) -> ParityPoint:
    """A point at which no numbers can be compared, and why."""
    return ParityPoint(
        batch=batch, length=length, max_absolute=math.inf, max_relative=math.inf, within=False, note=note
    )


def largest(values: Tensor) -> float:
    """The largest of some values; 0 if there are none."""
    return float(values.max()) if values.numel() else 0.0


def _mismatch(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...], reference: str) -> str:
    """What differs before any number is compared; empty if nothing does."""
    if len(expected) != len(actual):
        return f"the file gives {len(actual)} outputs, {reference} {len(expected)}"
    for index, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
        if wanted.shape != got.shape:
            return f"output {index} has shape {tuple(got.shape)}, in {reference} {tuple(wanted.shape)}"
        if wanted.dtype != got.dtype:
            return f"output {index} is {got.dtype}, in {reference} {wanted.dtype}"
        if not torch.equal(wanted.isnan(), got.isnan()):
            return _nan_note(index, wanted, got, reference)
    return ""


def _nan_note(index: int, wanted: Tensor, got: Tensor, reference: str) -> str:
    """Which of the two has NaN, and in whole rows of the last axis or not."""
    missing, added = wanted.isnan() & ~got.isnan(), got.isnan() & ~wanted.isnan()
    if bool(missing.any()) and bool(added.any()):
        return f"output {index} has NaN in other places than {reference}'s"
    holder, places = (reference, missing) if bool(missing.any()) else ("the file", added)
    count = int(places.sum())
    rows = int(torch.atleast_1d(places).all(-1).sum())
    whole = rows * places.shape[-1] == count if places.dim() else False
    number, word = (rows, "whole row") if whole else (count, "place")
    return f"only {holder} has NaN in output {index}: in {number} {word}{'s' if number > 1 else ''}"


def _difference(wanted: Tensor, got: Tensor) -> tuple[Tensor, Tensor]:
    """|got - wanted| and |wanted| in double precision; 0 if both are NaN or the same infinity."""
    wanted, got = wanted.double(), got.double()
    same = (wanted == got) | wanted.isnan()
    scale = torch.where(wanted.isfinite(), wanted.abs(), 0.0)
    return torch.where(same, 0.0, (got - wanted).abs()), scale
