"""Chained steps of a file beside whole sequences, far beyond the lengths that it was made at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compressor.measure import parity
from compressor.nn.attention.plain import plain_attention
from compressor.report import QuantizationPoint
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps
from exporters.parity import Disagreement, noise_of, of_file
from exporters.quantization.trials import as_tuple, relative_error
from exporters.stepping.sequences import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from compressor.formats import ExportOptions, Job
    from compressor.report import Noise, Parity
    from compressor.task.contract import Inputs


_LONGER = 10
"""The longest comparison, in lengths of the task."""


def agreement(reference: nn.Module, whole: Path, step: Path, job: Job[ExportOptions]) -> tuple[Parity, Parity]:
    """Chained steps of the file beside PyTorch, also at ten times the task's length, and beside the whole file.

    Raises:
        ParityError: They disagree somewhere.
    """
    steps = Steps(step)
    with_torch = beside_torch(reference, steps, job, step)
    task, sequences = job.task, Sequences(job.task, steps.info.inputs)
    long = (1, _LONGER * task.length)
    with torch.no_grad(), plain_attention():
        extra = [long] if task.min_length <= long[1] <= task.max_length else []
        beside_file = _compare(OnnxFile(whole), steps, sequences, job, extra, step, lambda inputs: with_torch.noise)
    for name, compared in (("PyTorch", with_torch), ("the whole-sequence file", beside_file)):
        if not compared.passed:
            raise Disagreement.of(compared, f"the chained steps of the step file disagree with {name}")
    return with_torch, beside_file


def beside_torch(reference: nn.Module, steps: Steps, job: Job[ExportOptions], path: Path) -> Parity:
    """Chained steps of the file at `path`, in whatever runtime, beside PyTorch's whole sequences, also much longer."""
    sequences = Sequences(job.task, steps.info.inputs)
    long = (1, _LONGER * job.task.length)
    with torch.no_grad(), plain_attention():
        extra = [long] if _runs(reference, lambda: sequences.example(*long)) else []
        noise_on = noise_of(reference, job.options)
        return _compare(reference, steps, sequences, job, extra, path, noise_on)


def apart(whole: Path, step: Path, job: Job[ExportOptions], limit: float) -> tuple[QuantizationPoint, ...]:
    """Chained steps of a rounded file beside the file of whole sequences, as both are shipped.

    Args:
        whole: The file of whole sequences.
        step: The step file.
        job: The export; its task and seed count.
        limit: Relative error up to which a point counts as within.
    """
    steps, file = Steps(step), OnnxFile(whole)
    sequences, points = Sequences(job.task, steps.info.inputs), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        for batch, length in parity.points(job.task):
            inputs = sequences.example(batch, length)
            error = relative_error([as_tuple(file(*inputs))], [as_tuple(steps(*inputs))])
            points.append(QuantizationPoint(batch=batch, length=length, error=error, within=error <= limit))
    return tuple(points)


def _runs(model: nn.Module, example: Callable[[], tuple[Tensor, ...]]) -> bool:
    """Whether the model takes an input that the task does not promise, such as a longer one."""
    try:
        model(*example())
    except Exception:  # whatever the model's code raises, the file is not to blame
        return False
    return True


def _compare(
    wanted: Callable[..., Any],
    steps: Steps,
    task: Sequences,
    job: Job[ExportOptions],
    extra: list[tuple[int, int]],
    path: Path,
    noise_on: Callable[[Sequence[Inputs]], Noise | None],
) -> Parity:
    atol, rtol = job.options.tolerances
    compared = parity.check(
        wanted,
        steps,
        task,
        atol=atol,
        rtol=rtol,
        generator=torch.Generator().manual_seed(job.seed),
        extra=extra,
        noise_on=noise_on,
    )
    return of_file(compared, path)
