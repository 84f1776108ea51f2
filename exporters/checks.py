"""Does a file agree with PyTorch, in ONNX Runtime or in its own runtime, at batch sizes and lengths never seen?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.report import RuntimeCheck
from exporters.parity import Disagreement, noise_of, of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from compressor.formats import ExportOptions, Job
    from compressor.report import Parity
    from compressor.task.contract import Task


_OF_OPENVINO = (
    "if only some lengths are wrong, it is its cache of compiled subgraphs: with CPU_RUNTIME_CACHE_CAPACITY 0 or "
    "SNIPPETS_MODE DISABLE it computes attention right at every length; "
)


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
    from compressor.runtimes.forward import open_forward
    from compressor.runtimes.steps import Steps
    from compressor.task.fixed_axes import fixed
    from exporters.stepping import chained

    forward = open_forward(candidate, job.task, runtime=runtime)
    try:
        if isinstance(forward, Steps):
            return chained.beside_torch(reference, forward, job, candidate), forward.runtime
        further = {name: forward.fixed_size(name) for name in job.task.ranges}
        sizes = {"batch": 1 if forward.alone else None, "time": forward.length, **further}
        fitting = fixed(job.task, {axis: size for axis, size in sizes.items() if size is not None})
        return of_file(_compared(reference, forward, fitting, job), candidate), forward.runtime
    finally:
        forward.close()


def in_onnx_runtime(reference: nn.Module, candidate: Path, job: Job[ExportOptions]) -> Parity:
    """Agreement of the file with PyTorch; raises `ParityError` with every point if one is not."""
    from compressor.runtimes.forward import Fixed, WhenCalled
    from compressor.runtimes.onnx_runtime import OnnxFile
    from compressor.task.fixed_axes import dynamic

    file = WhenCalled(lambda: Fixed(OnnxFile(candidate), dynamic(job.task)))
    compared = _compared(reference, file, job.task, job, between=file.open)
    file.close()
    if not compared.passed:
        raise Disagreement.of(compared, "the exported file disagrees with PyTorch")
    return of_file(compared, candidate)


def in_other_runtimes(
    reference: nn.Module, candidate: Path, job: Job[ExportOptions], runtimes: Sequence[str]
) -> tuple[RuntimeCheck, ...]:
    """Agreement of the file with PyTorch in each further runtime; raises `ParityError` if one is not right."""
    from exporters import in_browser
    from exporters.passes import fixed_shapes

    checks = []
    for runtime in dict.fromkeys(runtimes):
        compared, version = agreement(reference, candidate, job, runtime=runtime)
        if not compared.passed:
            known = "it computes an RNN of relu as one of tanh; " if fixed_shapes.has_relu(candidate) else ""
            known += _OF_OPENVINO if runtime == "openvino" else ""
            raise Disagreement.of(
                compared,
                f"the exported file is right in ONNX Runtime and disagrees with PyTorch in {version}",
                hint=f"{known}leave `{runtime}` out of `check_in` if the file is not for it",
            )
        timed = in_browser.latencies(candidate, job, runtime) if runtime in in_browser.THREADS else ()
        checks.append(RuntimeCheck(runtime=version, parity=compared, latencies=timed))
    return tuple(checks)


def _compared(
    reference: nn.Module,
    forward: Callable[..., Any],
    task: Task,
    job: Job[ExportOptions],
    between: Callable[[], object] = lambda: None,
) -> Parity:
    """Agreement with a file of whole sequences; `between` as in `parity.check`."""
    import torch

    from compressor.measure import parity
    from compressor.nn.attention.plain import plain_attention
    from compressor.task.samples import fitting

    atol, rtol = job.options.tolerances
    with torch.no_grad(), plain_attention():
        return parity.check(
            reference,
            forward,
            task,
            atol=atol,
            rtol=rtol,
            generator=torch.Generator().manual_seed(job.seed),
            real=fitting(task, job.real),
            noise_on=noise_of(reference, job.options),
            between=between,
        )
