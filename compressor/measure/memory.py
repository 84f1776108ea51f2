"""Memory that a file takes to load and run."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor import child
from compressor.measure.runtime import OnnxFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_WORKER = Path(__file__).with_name("_peak.py")
_TIMEOUT_SECONDS = 600


def peak(path: Path, inputs: Sequence[Tensor], *, runs: int = 3) -> int | None:
    """By how many bytes a process grows at its peak when it loads `path` and runs it `runs` times on one thread.

    Measured in a fresh process that holds Python, NumPy and ONNX Runtime: the highest resident set after these
    imports minus the resident set right after them. So it counts the weights, the session and the intermediate
    values, and also some MiB that ONNX Runtime takes for itself on first use, the same for every file.
    The resident set moves in pages and a run differs from the next by some 100 KiB.

    Returns:
        None where the system does not tell (Linux and macOS do).

    Raises:
        ExportError: the file cannot be loaded or run.
        UsageError: inputs that the file does not take.
    """
    feed = OnnxFile(path).feed(inputs)
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "inputs.npz"
        np.savez(packed, *feed.values())
        # -P keeps this package's folder off the import path, where its module names could hide others.
        command = [sys.executable, "-P", str(_WORKER), str(path), str(packed), str(runs)]
        answer = child.run(
            command,
            seconds=_TIMEOUT_SECONDS,
            what=f"{path} in a process of its own",
            hint="the file loads here but not there: is there enough memory?",
        ).strip()
    return None if answer == "unknown" else int(answer)
