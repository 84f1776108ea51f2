"""MNN: `.mnn`."""

import MNN
import numpy as np
from MNN import expr, nn

VERSION = f"MNN {MNN.version()}, CPU"
_KINDS = {"float32": expr.float, "int32": expr.int}


class File:
    """A module on the CPU; MNN has no integers of 64 bits and no booleans, so these go through as 32 bits."""

    def __init__(self, path, threads, description):
        self._inputs = [(item["name"], _narrow(item["dtype"])) for item in description["inputs"]]
        self._outputs = [item["dtype"] for item in description["outputs"]]
        names = [item["name"] for item in description["outputs"]]
        config = {"backend": "CPU", "numThread": threads, "precision": "high"}
        runtime = nn.create_runtime_manager((config,))
        self._module = nn.load_module_from_file(
            path, [name for name, _ in self._inputs], names, dynamic=False, shape_mutable=True, runtime_manager=runtime
        )

    def run(self, arrays):
        given = []
        for array, (_, dtype) in zip(arrays, self._inputs, strict=True):
            variable = expr.placeholder(list(array.shape), expr.NCHW, _KINDS[dtype])
            variable.write(np.ascontiguousarray(array, dtype))
            given.append(variable)
        results = self._module.forward(given)
        results = results if isinstance(results, (list, tuple)) else [results]
        return [
            np.array(expr.convert(result, expr.NCHW).read()).astype(dtype, copy=False)
            for result, dtype in zip(results, self._outputs, strict=True)
        ]


def _narrow(dtype):
    return dtype if dtype.startswith("float") else "int32"
