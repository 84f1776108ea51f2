"""ncnn: `.param` and, of the same name, `.bin`."""

import json
from pathlib import Path

import ncnn
import numpy as np

VERSION = f"ncnn {ncnn.__version__}, CPU"


class File:
    """A net on the CPU in float32; it may lack the axis of samples, and has no integers of 64 bits."""

    def __init__(self, path, threads, description):
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = threads
        for narrow in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "int8_inference"):
            name = f"use_{narrow}"
            if hasattr(self._net.opt, name):
                setattr(self._net.opt, name, False)
        if self._net.load_param(path) != 0 or self._net.load_model(str(Path(path).with_suffix(".bin"))) != 0:
            raise RuntimeError("it cannot be loaded")
        details = description["details"]
        self._dropped_in = json.loads(details["dropped_in"])
        self._dropped_out = json.loads(details["dropped_out"])
        self._in, self._out = json.loads(details["blobs_in"]), json.loads(details["blobs_out"])
        self._outputs = [(item["dtype"], len(item["shape"])) for item in description["outputs"]]

    def run(self, arrays):
        with self._net.create_extractor() as extractor:
            kept = []
            for name, axis, array in zip(self._in, self._dropped_in, arrays, strict=True):
                if name is None:
                    continue
                alone = array if axis is None else np.squeeze(array, axis)
                kind = np.float32 if array.dtype.kind == "f" else np.int32
                kept.append(np.array(alone, kind, order="C"))
                extractor.input(name, ncnn.Mat(kept[-1]))
            return [
                self._extracted(extractor, name, axis, dtype, rank)
                for name, axis, (dtype, rank) in zip(self._out, self._dropped_out, self._outputs, strict=True)
            ]

    def _extracted(self, extractor, name, axis, dtype, rank):
        status, mat = extractor.extract(name)
        if status != 0:
            raise RuntimeError(f"blob {name} cannot be computed (status {status})")
        array = np.array(mat).astype(dtype)
        return array if axis is None or array.ndim == rank else np.expand_dims(array, axis)
