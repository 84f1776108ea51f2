"""Runs in a process of its own: load a file, run it, print by how many bytes the resident set grew at its peak.

Started by path, not as a module of the package, so that nothing but ONNX Runtime and NumPy is in the process.
Arguments: the ONNX file, an .npz of inputs in order, the number of runs. Prints an integer, or `unknown`.
"""

import gc
import sys
from pathlib import Path

import numpy as np
import onnxruntime

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def _kib(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)


def _linux(work: "_Work") -> int:
    """VmHWM after the work - VmRSS before it, in bytes; the peak is reset first, for imports may have been higher."""
    gc.collect()
    _CLEAR_REFS.write_text(_RESET_PEAK)
    before = _kib("VmRSS")
    work.run()
    return (_kib("VmHWM") - before) * 1024


def _macos(work: "_Work") -> int:
    """Growth of ru_maxrss, which macOS gives in bytes and cannot reset."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work.run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


class _Work:
    """Load the file and run it."""

    def __init__(self, path: str, inputs: str, runs: str) -> None:
        self.path = path
        with np.load(inputs) as arrays:
            self.inputs = [arrays[name] for name in arrays.files]
        self.runs = int(runs)

    def run(self) -> None:
        """The part whose memory counts."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        feed = {item.name: array for item, array in zip(session.get_inputs(), self.inputs, strict=True)}
        for _ in range(self.runs):
            session.run(None, feed)


def main() -> None:
    """Print the growth in bytes."""
    measure = {"linux": _linux, "darwin": _macos}.get(sys.platform)
    try:
        print("unknown" if measure is None else measure(_Work(*sys.argv[1:])))
    except (PermissionError, LookupError):
        print("unknown")  # a kernel that does not tell, or does not let the peak be reset


if __name__ == "__main__":
    main()
