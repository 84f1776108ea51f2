"""Runs in a process of its own: loads ONNX files into ONNX Runtime sessions, which may crash, and says how it went.

Started by path, not as a module of the package, so that nothing but ONNX Runtime is in the process. Reads paths, one a
JSON string a line; answers each with a line of JSON: null, or what ONNX Runtime said.
"""

import json
import sys

import onnxruntime


def _load(path: str) -> str | None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised as well
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        return str(error) or type(error).__name__
    return None


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        print(json.dumps(_load(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
