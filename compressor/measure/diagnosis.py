"""What kind of disagreement a failed comparison shows, and what to do about it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.report import Parity, ParityPoint

RANDOM_MODEL = "PyTorch itself gives something else in a second call"
RANDOM_FILE = "the file gives something else in a second call"
_LITTLE = 0.01
"""Of the largest output: rounding that adds up is rarely more."""
_SUDDEN = 30.0
"""Errors that are this many times those at other sizes, for each position more, are not rounding that adds up."""
_FEW_ROUNDINGS = 1e-5
"""Of the largest output: so little is rounding, however small the errors at other sizes are."""
_LARGEST_TOLERANCE = 0.1
"""The largest `atol` and `rtol` that options take."""


class Diagnosis(NamedTuple):
    """A failed comparison in words."""

    kind: str
    remedy: str

    def of(self, parity: Parity) -> str:
        """The kind and the table of all points, for an error message."""
        return f"{self.kind}\n{table(parity)}"


def table(parity: Parity) -> str:
    """The points as plain text, for an error message."""
    further = list(parity.points[0].sizes) if parity.points else []
    rows = ["  batch  length  " + "".join(f"{name}  " for name in further) + "max abs    max rel"]
    rows += [
        f"  {point.batch:>5}  {point.length:>6}  "
        + "".join(f"{point.sizes.get(name, ''):>{len(name)}}  " for name in further)
        + f"{point.max_absolute:.2e}   {point.max_relative:.2e}"
        + ("" if point.origin == "example" else f"   from `{point.origin}`")
        + ("" if point.within else f"   {point.note or 'too large'}")
        for point in parity.points
    ]
    return "\n".join(rows)


def diagnose(parity: Parity) -> Diagnosis:
    """Name the kind of a comparison that failed; causes that explain all failures come first."""
    failed = [point for point in parity.points if not point.within]
    for recognise in (_random, _nan, _sizes, _little):
        diagnosis = recognise(parity, failed)
        if diagnosis is not None:
            return diagnosis
    return Diagnosis(
        "it is wrong at every size, by more than rounding explains: it computes something else",
        "an operator is converted wrongly: export parts of the model to find it, or try another `opset` or format",
    )


def _random(parity: Parity, failed: Sequence[ParityPoint]) -> Diagnosis | None:
    notes = {point.note for point in failed}
    if RANDOM_MODEL in notes:
        return Diagnosis(
            "the model draws random numbers or keeps a state, so nothing can agree with it",
            "draw only `if self.training`, and take noise and states as inputs",
        )
    if RANDOM_FILE in notes:
        return Diagnosis(
            "the file draws random numbers", "a dropout stayed active: use `nn.Dropout`, or pass `self.training` to it"
        )
    return None


def _nan(parity: Parity, failed: Sequence[ParityPoint]) -> Diagnosis | None:
    notes = [point.note for point in failed if "has NaN in" in point.note]
    if not notes:
        return None
    if any(note.startswith("only PyTorch") for note in notes):
        rows = any("whole row" in note for note in notes)
        where = (
            "in whole rows, as a softmax over a row that is masked whole does" if rows else "where the file does not"
        )
        return Diagnosis(
            f"PyTorch gives NaN {where}",
            "let every row see one position at least, or mask with a large negative number instead of -inf; or let "
            "`example` give no such rows",
        )
    half = parity.noise is not None and parity.noise.precision == "float16"
    return Diagnosis(
        "the file gives NaN where PyTorch gives numbers",
        "a number is beyond 65504, the largest half: scale it down, or use `precision: float32`"
        if half
        else "mask with a large negative number, such as -1e9, instead of -inf; look for 0 / 0 and inf - inf",
    )


def _sizes(parity: Parity, failed: Sequence[ParityPoint]) -> Diagnosis | None:
    """Right at some lengths, or at some batch sizes, and suddenly wrong at all others."""
    right = [point for point in parity.points if point.within]
    if not right or _grows(right, failed):
        return None
    for word in ("length", "batch size", *right[0].sizes):
        good, bad = ({_size(point, word) for point in points} for points in (right, failed))
        if good.isdisjoint(bad):
            return Diagnosis(
                f"it is right at {word} {_listed(good)} and wrong at {_listed(bad)}: a size is fixed in it",
                f"look for a {word} that the model's code takes as a number: a table of positions, a mask or a reshape "
                "of one size, `int(...)` or `.item()` of a shape, a loop",
            )
    return None


def _size(point: ParityPoint, word: str) -> int:
    return {"length": point.length, "batch size": point.batch, **point.sizes}[word]


def _grows(right: Sequence[ParityPoint], failed: Sequence[ParityPoint]) -> bool:
    """Whether the errors are such as rounding makes, larger at longer lengths than at others."""
    usual = max(point.max_absolute / point.length for point in right)
    return all(
        _is_little(point) and point.max_absolute <= max(_SUDDEN * usual * point.length, _FEW_ROUNDINGS * point.scale)
        for point in failed
    )


def _little(parity: Parity, failed: Sequence[ParityPoint]) -> Diagnosis | None:
    if not all(_is_little(point) for point in failed):
        return None
    worst = max(failed, key=lambda point: point.max_absolute)
    noise = parity.noise
    kind = f"it is close everywhere: off by {worst.max_absolute:.2g} of {worst.scale:.2g} at most"
    if noise is not None:
        own = "PyTorch in float32" if noise.precision == "float32" else "the model in float16"
        kind += f"; {own} is off by {noise.largest:.2g} itself, and {noise.multiple:g} times that is allowed"
    return Diagnosis(kind, _value(parity, failed))


def _value(parity: Parity, failed: Sequence[ParityPoint]) -> str:
    atol = _rounded_up(max(point.needed for point in failed))
    if atol <= _LARGEST_TOLERANCE:
        return f"if the metric bears it, set `atol: {atol:g}`"
    rtol = _rounded_up(max(point.max_relative for point in failed))
    if rtol <= _LARGEST_TOLERANCE:
        return f"if the metric bears it, set `rtol: {rtol:g}`"
    return "the outputs are large, and some of them near zero: scale them down in the model, or keep more precision"


def _rounded_up(value: float) -> float:
    """A little more than a value, with one digit."""
    more = 1.1 * value
    step = 10.0 ** math.floor(math.log10(more))
    return math.ceil(more / step) * step


def _is_little(point: ParityPoint) -> bool:
    return not point.note and point.max_absolute <= _LITTLE * point.scale


def _listed(sizes: set[int]) -> str:
    return ", ".join(str(size) for size in sorted(sizes))
