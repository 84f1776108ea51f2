"""What ONNX Runtime takes to load weights in few bits: memory and seconds of a fresh process that loads eight matrices.

    python benchmarks/load_memory.py [--size 1024] [--forms weights weights4 integer5 ...]

Eight products of size x size; `weightsB` become float at load, `integerB` 8-bit integers. Memory is by how much the
process grows at its peak, in parts of the matrices in float32. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_COUNT = 8
_LOADS = """
import re, sys, time, onnxruntime
def status(key):
    return int(re.search(key + r':\\s+(\\d+) kB', open('/proc/self/status').read())[1])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
before, clock = status('VmRSS'), time.perf_counter()
onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])
print(status('VmHWM') - before, time.perf_counter() - clock)
"""


def main() -> None:
    """Print a line for each form."""
    from exporters.quantization.matrices import find
    from exporters.quantization.rewrite import rewrite
    from exporters.quantization.weights import Weights

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    forms = ["float", "weights", *(f"{kind}{bits}" for kind in ("weights", "integer") for bits in (3, 4, 5, 6))]
    parser.add_argument("--forms", nargs="+", default=forms)
    options = parser.parse_args()
    proto = _products(options.size)
    weights = Weights(proto, find(proto, ()), 32)
    whole = _COUNT * options.size**2 * 4
    for form in options.forms:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            path.write_bytes(rewrite(proto, weights, dict.fromkeys(weights.matrices, form)).SerializeToString())
            said = subprocess.run([sys.executable, "-c", _LOADS, str(path)], capture_output=True, check=True, text=True)
            kilobytes, seconds = said.stdout.split()
            grown = int(kilobytes) * 1024 / whole
            print(f"{form}: {path.stat().st_size:,} B, {grown:.1f} times the float matrices, {float(seconds):.2f} s")


def _products(size: int) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights = [random.standard_normal((size, size)).astype(np.float32) for _ in range(_COUNT)]
    nodes = [helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"]) for index in range(_COUNT)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in ("x0", f"x{_COUNT}")]
    kept = [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


if __name__ == "__main__":
    main()
