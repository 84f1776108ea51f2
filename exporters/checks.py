"""Does a file agree with PyTorch, in ONNX Runtime or in its own runtime, at batch sizes and lengths never seen?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.errors import ParityError
from compressor.files import sha256
from compressor.report import Parity, RuntimeCheck

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from compressor.formats import ExportOptions, Job


_OF_OPENVINO = (
    "if only some lengths are wrong, it is its cache of compiled subgraphs: with CPU_RUNTIME_CACHE_CAPACITY 0 or "
    "SNIPPETS_MODE DISABLE it computes attention right at every length; "
)


class Disagreement(ParityError):
    """A `ParityError` that holds the comparison."""

    def __init__(self, parity: Parity, message: str, *, hint: str | None = None) -> None:
        """For a comparison that was not passed."""
        super().__init__(message, hint=hint)
        self.parity = parity


def of_file(compared: Parity, candidate: Path) -> Parity:
    """A comparison that names the file that was compared."""
    return compared.model_copy(update={"sha256": sha256(candidate)})


def agreement(
    reference: nn.Module, candidate: Path, job: Job[ExportOptions], *, runtime: str | None = None
) -> tuple[Parity, str]:
    """Agreement of a file with PyTorch in its own runtime, at the batch sizes and lengths that it takes.

    Args:
        reference: The model, as `prepare.private_copy` gives it.
        candidate: The file; a step file is chained over sequences.
        job: The export; its task, tolerances and seed count.
        runtime: Another runtime for an ONNX file.

    Returns:
        The comparison, passed or not, and name and version of the runtime.

    Raises:
        ExportError: The file cannot be loaded.
    """
    import torch

    from compressor.measure import parity
    from compressor.runtimes.forward import open_forward
    from compressor.runtimes.steps import Steps
    from compressor.task.fixed_axes import fixed
    from exporters.capture.program import plain_attention
    from exporters.stepping import chained

    forward = open_forward(candidate, job.task, runtime=runtime)
    try:
        if isinstance(forward, Steps):
            return chained.beside_torch(reference, forward, job, candidate), forward.runtime
        further = {name: forward.fixed_size(name) for name in job.task.ranges}
        sizes = {"batch": 1 if forward.alone else None, "time": forward.length, **further}
        fitting = fixed(job.task, {axis: size for axis, size in sizes.items() if size is not None})
        with torch.no_grad(), plain_attention():
            compared = parity.check(reference, forward, fitting, **_settings(job))
        return of_file(compared, candidate), forward.runtime
    finally:
        forward.close()


def in_onnx_runtime(reference: nn.Module, candidate: Path, job: Job[ExportOptions]) -> Parity:
    """Agreement of the file with PyTorch; raises `ParityError` with every point if one is not."""
    import torch

    from compressor.measure import parity
    from compressor.runtimes.forward import Fixed
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.task.fixed_axes import dynamic
    from exporters.capture.program import plain_attention

    forward = Fixed(OnnxFile(candidate), dynamic(job.task))
    with torch.no_grad(), plain_attention():
        compared = parity.check(reference, forward, job.task, **_settings(job))
    if not compared.passed:
        raise ParityError(
            f"the exported file disagrees with PyTorch (atol {compared.atol:g}, rtol {compared.rtol:g}):\n"
            + parity.table(compared),
            hint="the model's code may fix a length or a batch size; if every point is close, raise atol and rtol",
        )
    return of_file(compared, candidate)


def in_other_runtimes(
    reference: nn.Module, candidate: Path, job: Job[ExportOptions], runtimes: Sequence[str]
) -> tuple[RuntimeCheck, ...]:
    """Agreement of the file with PyTorch in each further runtime; raises `ParityError` if one is not right."""
    from compressor.measure import parity
    from exporters.passes import fixed_shapes

    checks = []
    for runtime in dict.fromkeys(runtimes):
        compared, version = agreement(reference, candidate, job, runtime=runtime)
        if not compared.passed:
            known = "it computes an RNN of relu as one of tanh; " if fixed_shapes.has_relu(candidate) else ""
            known += _OF_OPENVINO if runtime == "openvino" else ""
            raise ParityError(
                f"the exported file is right in ONNX Runtime and disagrees with PyTorch in {version}:\n"
                + parity.table(compared),
                hint=f"{known}leave `{runtime}` out of `check_in` if the file is not for it",
            )
        checks.append(RuntimeCheck(runtime=version, parity=compared))
    return tuple(checks)


def _settings(job: Job[ExportOptions]) -> dict[str, Any]:
    """Tolerances, and the source of sizes that are compared."""
    import torch

    generator = torch.Generator().manual_seed(job.seed)
    return {"atol": job.options.atol, "rtol": job.options.rtol, "generator": generator}
