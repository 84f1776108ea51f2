"""ExecuTorch: `.pte`."""

from importlib import metadata

import numpy as np
import torch
from executorch.extension.pybindings import portable_lib

VERSION = f"ExecuTorch {metadata.version('executorch')}, CPU (XNNPACK)"


class File:
    """A program on the CPU."""

    def __init__(self, path, threads, description):
        portable_lib._unsafe_reset_threadpool(threads)
        self._module = portable_lib._load_for_executorch(path)
        self._outputs = len(description["outputs"])

    def run(self, arrays):
        outputs = self._module.forward([torch.from_numpy(array) for array in arrays])
        if len(outputs) != self._outputs:
            raise ValueError(f"the file has {len(outputs)} outputs, its description {self._outputs}")
        return [np.array(output.numpy()) for output in outputs]  # copies: the next run writes into the same memory
