"""ONNX Runtime: `.onnx` and `.ort`."""

import onnxruntime

VERSION = f"ONNX Runtime {onnxruntime.__version__}, CPU"
_ERRORS_ONLY = 3


class File:
    """A session on the CPU."""

    def __init__(self, path, threads, description):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [item.name for item in self._session.get_inputs()]

    def run(self, arrays):
        return self._session.run(None, dict(zip(self._names, arrays, strict=True)))
