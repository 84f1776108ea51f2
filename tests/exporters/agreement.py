"""A file beside its model."""

import torch

from compressor.runtimes.onnx_runtime import OnnxFile
from tests.tolerances import EXPORTED_FLOAT32


def assert_agrees(path, model, *inputs):
    """The file gives in ONNX Runtime what the model gives, in float32."""
    with torch.no_grad():
        torch.testing.assert_close(OnnxFile(path)(*inputs), model(*inputs), **EXPORTED_FLOAT32)
