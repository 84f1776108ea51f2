"""Files with fewer bits: the float file has to agree with PyTorch before the rounded one is looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compressor.errors import ExportError, ParityError
from exporters.checks import agreement
from exporters.deliver import deliver
from exporters.parity import Disagreement
from exporters.prepare import private_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from compressor.formats import Job
    from compressor.report import Artifact
    from compressor.task.contract import Task
    from exporters.deliver import Candidate
    from exporters.options import RoundedOptions

_ERRORS = {"int8": 0.05, "int4": 0.2}
"""How far a quantized output may be off, in parts of the largest output: above, something else went wrong."""


_SMALLER = 0.95
"""A quantized file that is not even this much of the float file has nothing quantized in it."""


def deliver_rounded(candidates: Sequence[Candidate], job: Job[RoundedOptions]) -> Artifact:
    """The last candidate, delivered; if it is quantized, the float file before it had to agree with PyTorch."""
    final = candidates[-1]
    if len(candidates) == 1:
        return deliver(final, job)
    options = job.options
    reference = private_copy(job.model)
    before, after = (_bytes(candidate) for candidate in candidates)
    if after > _SMALLER * before:
        raise ExportError(
            f"`precision: {options.precision}` leaves {job.path.name} at {after} bytes, of {before} in float32: the "
            "model has no linear layer or recurrent cell that could be quantized",
            hint="use `precision: float32`",
        )
    compared, runtime = agreement(reference, candidates[0].path, job)
    if not compared.passed:
        raise Disagreement.of(
            compared, f"the float32 file, before it is quantized, disagrees with PyTorch in {runtime}"
        )
    part = options.quantized_error or _ERRORS[options.precision]
    scale = _largest_output(reference, job.task, options)
    loose = options.model_copy(update={"atol": part * scale, "rtol": 0.0})
    worst = max(point.max_absolute for point in compared.points)
    note = (
        f"{options.precision}: {options.how_rounded}. In float32 the file has {before} bytes and agrees with PyTorch "
        f"to {worst:.2g}; quantized "
        f"it may be off by {part:g} of the largest output, {scale:.3g}, and the metric has the last word."
    )
    candidate = replace(final, notes=(*final.notes, note))
    try:
        return deliver(candidate, replace(job, options=loose))
    except ParityError as error:
        error.hint = "the float32 file agrees: raise `quantized_error`, or use a finer `precision`"
        raise


def _bytes(candidate: Candidate) -> int:
    return candidate.path.stat().st_size if candidate.stored is None else candidate.stored[0]


def _largest_output(model: nn.Module, task: Task, options: RoundedOptions) -> float:
    import torch

    from compressor.nn.attention.plain import plain_attention

    with torch.random.fork_rng(devices=[]), torch.no_grad(), plain_attention():
        torch.manual_seed(0)
        results = model(*task.example(2, options.length or task.length))
    flat = (results,) if isinstance(results, torch.Tensor) else results
    return max(float(part.abs().max()) for part in flat if part.is_floating_point())
