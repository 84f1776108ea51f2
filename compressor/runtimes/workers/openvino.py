"""OpenVINO: reads `.onnx`."""

import numpy as np
import openvino

VERSION = f"OpenVINO {openvino.__version__.split('-')[0]}, CPU"


class File:
    """A compiled model on the CPU, in float32: its default there is bfloat16 if the processor has it."""

    def __init__(self, path, threads, description):
        core = openvino.Core()
        config = {"INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
        self._model = core.compile_model(core.read_model(path), "CPU", config)
        self._request = self._model.create_infer_request()
        self._outputs = [(index, item["dtype"]) for index, item in enumerate(description["outputs"])]

    def run(self, arrays):
        self._request.infer(dict(enumerate(arrays)))
        return [
            np.array(self._request.get_output_tensor(index).data).astype(dtype, copy=False)
            for index, dtype in self._outputs
        ]
