"""How fast a file is in a browser, by the browser's own clock."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.formats import ExportOptions, Job
    from compressor.report import Latency

THREADS: Final = {"web": (1, 4), "webgpu": (1,)}
"""Runtime in a browser -> with how many threads it is timed."""
_WARMUP: Final = 5
_RUNS: Final = 50
_SECONDS: Final = 2.0
"""About as long is timed with each number of threads."""


def latencies(path: Path, job: Job[ExportOptions], runtime: str) -> tuple[Latency, ...]:
    """Latency of one call of an ONNX file in ONNX Runtime Web, by WebAssembly on one thread and on four, or by WebGPU.

    A call takes one sample of the task's length, or the step that ends it. Nothing else is interleaved with it: the
    numbers are for this machine and this browser, not for a ratio.

    Raises:
        ExportError: The runtime is missing, or cannot run the file.
    """
    from compressor.measure.latency import summary
    from compressor.runtimes.runtime_file import open_file
    from compressor.runtimes.steps import Steps, read_info
    from compressor.task.fixed_axes import dynamic

    found = []
    for threads in THREADS[runtime]:
        with closing(open_file(path, threads, runtime=runtime)) as file:
            inputs, length = job.task.example(1, job.task.length), job.task.length
            if read_info(file) is not None:
                steps = Steps(path, file=file)
                chunk = steps.info.chunk
                inputs = tuple(steps.one_step(inputs, past=max(0, dynamic(job.task).length - chunk)))
                length = chunk
            feed = file.feed(file.cast(inputs))
            slowest = max(file.burst(feed, runs=2, warmup=_WARMUP))
            runs = max(5, min(_RUNS, int(_SECONDS * 1e3 / max(slowest, 1e-3))))
            timed = file.burst(feed, runs=runs, warmup=0)
            one = summary([timed], warmup=_WARMUP, batch=1, length=length, threads=threads, runtime=file.runtime)
            found.append(one.model_copy(update={"samples": ()}))
    return tuple(found)
