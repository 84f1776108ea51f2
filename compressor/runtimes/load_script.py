"""Runs in a process of its own: loads ONNX files into ONNX Runtime sessions, which may crash, and says how it went.

Started by path, not as a module of the package, so that nothing but ONNX Runtime is in the process. It is a server
of `compressor.runtimes.child`: reads questions, each behind eight bytes that hold its length, and answers in the same
form with what ONNX Runtime said, nothing if the file is loaded. A question is 1 if constants are folded, else 0, and a
path.
"""

import contextlib
import ctypes
import os
import struct
import sys

import onnxruntime


def _load(path: str, fold: bool) -> str:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised as well
    if not fold:  # as `compressor.runtimes.session` does
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        onnxruntime.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[] if fold else ["ConstantFolding"],
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        return str(error) or type(error).__name__
    return ""


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    while len(head := sys.stdin.buffer.read(8)) == 8:
        asked = sys.stdin.buffer.read(*struct.unpack("<Q", head))
        answer = _load(os.fsdecode(asked[1:]), asked[:1] == b"1").encode(errors="replace")
        give_back()  # before the asker loads the same file
        answers.write(struct.pack("<Q", len(answer)) + answer)
        answers.flush()


def give_back() -> None:
    """Give the system what the last file left behind; as `compressor.runtimes.freed_memory`, which is not in here."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    main()
