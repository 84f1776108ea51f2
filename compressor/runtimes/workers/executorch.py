"""ExecuTorch: `.pte`."""

from importlib import metadata

import numpy as np
import torch
from executorch.extension.pybindings import _C  # `portable_lib` is the same behind an import of all converters

VERSION = f"ExecuTorch {metadata.version('executorch')}, CPU (XNNPACK)"


class File:
    """A method of a program, loaded at once: a damaged file would otherwise show at its first run only."""

    def __init__(self, path, threads, description):
        _C._unsafe_reset_threadpool(threads)
        self._program = _C._load_program(path)  # the method reads from it
        self._method = self._program.load_method("forward")
        self._outputs = len(description["outputs"])

    def run(self, arrays):
        outputs = self._method([torch.from_numpy(array) for array in arrays])
        if len(outputs) != self._outputs:
            raise ValueError(f"the file has {len(outputs)} outputs, its description {self._outputs}")
        return [np.array(output.numpy()) for output in outputs]  # copies: the next run writes into the same memory
