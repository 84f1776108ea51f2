"""Proof that a rounded graph computes the model, at every size at which a file is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.errors import ParityError
from compressor.measure import parity
from compressor.nn.attention.plain import plain_attention
from compressor.report import Parity, QuantizationPoint
from exporters.parity import Disagreement
from exporters.quantization.trials import as_tuple, relative_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.task.contract import Task
    from exporters.quantization.matrices import Form
    from exporters.quantization.trials import Forward, Trials

_SUMS = 10
"""Of the export's tolerances: a Scan sums in another order than a native node, over and over."""
DEVIATION = 3.0
"""Of `max_error`, which is over all calibration data; a single short sequence may be further off."""


def structure(
    trials: Trials,
    forms: Mapping[str, Form],
    task: Task,
    *,
    atol: float,
    rtol: float,
    seed: int,
) -> Parity:
    """The rounded graph with its activations in float, beside the float graph that holds the same rounded weights.

    Args:
        trials: Writes both graphs.
        forms: Matrix -> form.
        task: Gives the inputs.
        atol: Of the export; ten times as much is allowed here.
        rtol: Likewise.
        seed: Of the sizes.

    Raises:
        ParityError: They disagree.
    """
    wanted = trials.opened(trials.writer.restored(forms))
    agreement = parity.check(
        wanted,
        trials.forward(forms, exact=True),
        task,
        atol=_SUMS * atol,
        rtol=_SUMS * rtol,
        generator=torch.Generator().manual_seed(seed),
        between=wanted.close,
    )
    if not agreement.passed:
        raise Disagreement.of(
            agreement,
            "the quantized graph does not compute what its rounded weights say",
            hint="keep matrices out with `keep_float`; if every point is close, raise atol and rtol",
        )
    return agreement


def deviation(
    forward: Forward,
    reference: nn.Module,
    compared: Sequence[tuple[int, int, tuple[Tensor, ...]]],
    max_error: float,
) -> tuple[QuantizationPoint, ...]:
    """The rounded file beside PyTorch, on inputs of a batch size and a length.

    Raises:
        ParityError: The relative error is more than three times `max_error` somewhere.
    """
    limit, points = DEVIATION * max_error, []
    for batch, length, inputs in compared:
        with torch.no_grad(), plain_attention():
            expected = reference(*inputs)
        error = relative_error([as_tuple(expected)], [as_tuple(forward(*inputs))])
        points.append(QuantizationPoint(batch=batch, length=length, error=error, within=error <= limit))
    if not all(point.within for point in points):
        lines = "\n".join(f"  batch {point.batch}, length {point.length}: {point.error:.3g}" for point in points)
        raise ParityError(
            f"the quantized file is further from PyTorch than {DEVIATION:g} x max_error = {limit:g}:\n{lines}",
            hint="give a smaller max_error, so that more stays float, or a larger one to accept this",
        )
    return tuple(points)
