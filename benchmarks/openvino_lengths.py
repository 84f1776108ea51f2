"""Does OpenVINO compute attention right at a length that comes after others? Largest errors in the order of the calls.

    python benchmarks/openvino_lengths.py

Two encoder layers of random weights, exported, called at several sizes one after the other beside ONNX Runtime: with
OpenVINO's defaults, without its cache of compiled subgraphs, without compiling subgraphs, and at each size afresh.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import openvino
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compressor.formats import Job
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask
from exporters import onnx
from tests.surgery import attentions

SIZES = ((1, 1), (2, 5), (3, 9), (5, 4), (1, 29), (3, 29))
"""(batch, length)."""
SETTINGS: dict[str, dict[str, str]] = {
    "defaults": {},
    "CPU_RUNTIME_CACHE_CAPACITY 0": {"CPU_RUNTIME_CACHE_CAPACITY": "0"},
    "SNIPPETS_MODE DISABLE": {"SNIPPETS_MODE": "DISABLE"},
}


def main() -> None:
    """Export, run, print one line a setting."""
    torch.manual_seed(0)
    timed = {0: "batch", 1: "time"}
    task = RandomTask({"features": timed}, {"scores": timed}, lambda b, t: (torch.randn(b, t, attentions.WIDTH),))
    inputs = [task.example(*size)[0] for size in SIZES]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        onnx.export(Job(attentions.Encoder().eval(), task, path, onnx.Options()))
        right = OnnxFile(path)
        wanted = [right(x).numpy() for x in inputs]
        print(f"OpenVINO {openvino.__version__}; (batch, length): {' '.join(map(str, SIZES))}")
        for name, setting in SETTINGS.items():
            request = _request(path, setting)
            print(f"{name}: {_errors([request] * len(inputs), inputs, wanted)}")
        print(f"defaults, each size afresh: {_errors([_request(path, {}) for _ in inputs], inputs, wanted)}")


def _request(path: Path, setting: dict[str, str]) -> openvino.InferRequest:
    core = openvino.Core()
    return core.compile_model(
        core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **setting}
    ).create_infer_request()


def _errors(requests: list[openvino.InferRequest], inputs: list[torch.Tensor], wanted: list[np.ndarray]) -> str:
    found = []
    for request, x, right in zip(requests, inputs, wanted, strict=True):
        request.infer({0: x.numpy()})
        found.append(f"{np.abs(np.array(request.get_output_tensor(0).data) - right).max():.0e}")
    return " ".join(found)


if __name__ == "__main__":
    main()
