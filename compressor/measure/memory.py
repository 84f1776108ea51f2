"""Memory that a file takes to load and run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.runtimes import runtime_file
from compressor.runtimes.runtime_file import RuntimeFile, open_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


def peak(path: Path, inputs: Sequence[Tensor], *, runs: int = 3) -> int | None:
    """By how many bytes a process grows at its peak when it loads `path` and runs it `runs` times on one thread.

    Measured in a fresh process that holds Python, NumPy and the runtime: the highest resident set after these
    imports minus the resident set right after them. So it counts the weights, the session and the intermediate
    values, and also some MiB of runtime overhead, the same for every file.
    The resident set moves in pages and a run differs from the next by some 100 KiB.

    Returns:
        None if the system does not tell (Linux and macOS do).

    Raises:
        ExportError: the file cannot be loaded or run.
        UsageError: inputs that the file does not take.
    """
    file = open_file(path)
    try:
        feed = file.feed(inputs)
        if isinstance(file, RuntimeFile):
            return runtime_file.peak(
                path, list(feed.values()), file.description.runtime, file.description.model_dump(mode="json"), runs=runs
            )
    finally:
        file.close()
    return runtime_file.peak(path, list(feed.values()), "onnxruntime", {}, runs=runs)
