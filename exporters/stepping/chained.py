"""Chained steps of a file beside whole sequences, far beyond the lengths that it was made at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compressor.measure import parity
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps
from exporters import checks
from exporters.capture import program as torch_capture
from exporters.stepping.sequences import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from compressor.export import ExportOptions, Job
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
    with_torch = beside_torch(reference, steps, job)
    task, sequences = job.task, Sequences(job.task, steps.info.inputs)
    long = (1, _LONGER * task.length)
    with torch.no_grad(), torch_capture.plain_attention():
        extra = [long] if task.min_length <= long[1] <= task.max_length else []
        beside_file = _compare(OnnxFile(whole), steps, sequences, job, extra, lambda inputs: with_torch.noise)
    for name, compared in (("PyTorch", with_torch), ("the whole-sequence file", beside_file)):
        if not compared.passed:
            raise checks.Disagreement.of(compared, f"the chained steps of the step file disagree with {name}")
    return with_torch, beside_file


def beside_torch(reference: nn.Module, steps: Steps, job: Job[ExportOptions]) -> Parity:
    """Chained steps of a file, in whatever runtime, beside PyTorch's whole sequences, also at ten times the length."""
    sequences = Sequences(job.task, steps.info.inputs)
    long = (1, _LONGER * job.task.length)
    with torch.no_grad(), torch_capture.plain_attention():
        extra = [long] if _runs(reference, lambda: sequences.example(*long)) else []
        return _compare(reference, steps, sequences, job, extra, checks.noise_of(reference, job.options))


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
    noise_on: Callable[[Sequence[Inputs]], Noise | None],
) -> Parity:
    atol, rtol = job.options.tolerances
    return parity.check(
        wanted,
        steps,
        task,
        atol=atol,
        rtol=rtol,
        generator=torch.Generator().manual_seed(job.seed),
        extra=extra,
        noise_on=noise_on,
    )
