"""Serves a file over pipes: `python -P serve.py RUNTIME.py`.

A message is eight bytes that hold its length (little-endian) and the message: four bytes that hold the length of its
head, the head (JSON), and the arrays that `head["arrays"]` describes, one behind the other. Requests, by `do`:

    load   path, threads, description          -> version
    run    arrays                              -> arrays
    time   arrays, warmup, runs                -> ns: of each timed run
    peak   as load, and arrays, runs           -> bytes: growth of the resident set at its peak, or null
    convert   what the module's `convert` takes -> what it gives

What goes wrong in Python is an answer with `error`; what crashes the process is for the asker to see.
"""

import gc
import importlib.util
import json
import os
import struct
import sys
import time
from pathlib import Path

import numpy as np

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def _runtime(path):
    specification = importlib.util.spec_from_file_location("served_runtime", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _kib(field):
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)


def _linux(work):
    """VmHWM after the work - VmRSS before it, in bytes; the peak is reset first, for imports may have been higher."""
    gc.collect()
    _CLEAR_REFS.write_text(_RESET_PEAK)
    before = _kib("VmRSS")
    work()
    return (_kib("VmHWM") - before) * 1024


def _macos(work):
    """Growth of ru_maxrss, which macOS gives in bytes and cannot reset."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


class _Server:
    """One file at a time."""

    def __init__(self, runtime):
        self._runtime = runtime
        self._file = None

    def load(self, head, arrays):
        self._file = None  # the old one is freed first
        self._file = self._runtime.File(head["path"], head["threads"], head["description"])
        return {"version": self._runtime.VERSION}, []

    def run(self, head, arrays):
        return {}, self._file.run(arrays)

    def time(self, head, arrays):
        if hasattr(self._file, "timed"):  # by a clock nearer to the runtime than this process
            return {"ns": self._file.timed(arrays, head["warmup"], head["runs"])}, []
        run = self._file.run
        gc.collect()
        gc.disable()
        try:
            for _ in range(head["warmup"]):
                run(arrays)
            timed = []
            for _ in range(head["runs"]):
                start = time.perf_counter_ns()
                run(arrays)
                timed.append(time.perf_counter_ns() - start)
        finally:
            gc.enable()
        return {"ns": timed}, []

    def convert(self, head, arrays):
        return self._runtime.convert(head), []

    def peak(self, head, arrays):
        def work():
            self.load(head, arrays)
            for _ in range(head["runs"]):
                self._file.run(arrays)

        measure = {"linux": _linux, "darwin": _macos}.get(sys.platform)
        if not getattr(self._runtime, "MEASURES_MEMORY", True):  # it is not this process that grows
            return {"bytes": None}, []
        try:
            return {"bytes": None if measure is None else measure(work)}, []
        except (PermissionError, LookupError):
            return {"bytes": None}, []  # a kernel that does not tell, or does not let the peak be reset


def unpacked(message):
    """The head and the arrays of a message."""
    (length,) = struct.unpack_from("<I", message)
    head = json.loads(message[4 : 4 + length])
    arrays, place = [], 4 + length
    for dtype, shape in head.pop("arrays"):
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(message, dtype, count, place).reshape(shape)
        arrays.append(array.copy())  # aligned and writable, as every runtime takes it
        place += array.nbytes
    return head, arrays


def packed(head, arrays):
    """The message that holds a head and arrays."""
    arrays = [np.ascontiguousarray(array).reshape(np.shape(array)) for array in arrays]
    described = [[str(array.dtype), list(array.shape)] for array in arrays]
    text = json.dumps({**head, "arrays": described}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(array.tobytes() for array in arrays)])


def main():
    """Answer until the asker is gone."""
    # What a runtime's C++ code prints goes to standard error; the answers keep the pipe to themselves.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = os.fdopen(os.dup(0), "rb")
    server = None
    while True:
        prefix = questions.read(8)
        if len(prefix) < 8:
            return
        head, arrays = unpacked(questions.read(struct.unpack("<Q", prefix)[0]))
        try:
            if server is None:
                server = _Server(_runtime(sys.argv[1]))
            answer = packed(*getattr(server, head.pop("do"))(head, arrays))
        except Exception as error:
            answer = packed({"error": f"{type(error).__name__}: {error}".strip()}, [])
        answers.write(struct.pack("<Q", len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    main()
