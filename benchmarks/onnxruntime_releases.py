"""Which opset, format version and 4-bit product does the ONNX Runtime of this environment read?

    python benchmarks/onnxruntime_releases.py

It needs onnx, numpy and onnxruntime only, so that it runs in an environment of its own for each release, such as
`pip install onnxruntime==1.17.3 'numpy<2' onnx==1.16.2`. The tables of
docs/concepts/exported-files.md and exporters/passes/versions.py are from such runs.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSETS, FORMATS = range(17, 24), range(8, 12)


def main() -> None:
    """Print what is read and what is refused."""
    onnxruntime.set_default_logger_severity(4)
    opsets = {opset: reads(gru(), opset, 8) for opset in OPSETS}
    formats = {version: reads(gru(), 17, version) for version in FORMATS}
    print(f"onnxruntime {onnxruntime.__version__}")
    print("opsets:", ", ".join(f"{opset} {'read' if ok else 'refused'}" for opset, ok in opsets.items()))
    print("formats:", ", ".join(f"{version} {'read' if ok else 'refused'}" for version, ok in formats.items()))
    print("4-bit products:", "read" if reads(four_bits(), 18, 8) else "refused")


def reads(graph: object, opset: int, version: int) -> bool:
    """Whether a graph of that opset and format loads."""
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=version)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # its exceptions have no common base
        return False
    return True


def gru(inputs: int = 3, units: int = 5) -> object:
    """A layer of random weights."""
    random = np.random.default_rng(0)
    shapes = {"W": (1, 3 * units, inputs), "R": (1, 3 * units, units), "B": (1, 6 * units)}
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    node = helper.make_node("GRU", ["x", *shapes], ["y"], hidden_size=units, linear_before_reset=1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_graph([node], "gru", [x], [y], weights)


def four_bits(rows: int = 64, columns: int = 5, block: int = 32) -> object:
    """`MatMulNBits` as the exporter writes it."""
    packed = np.zeros((columns, rows // block, block // 2), np.uint8)
    scales = np.ones(columns * rows // block, np.float32)
    weights = [numpy_helper.from_array(array, name) for name, array in (("w", packed), ("s", scales))]
    attributes = {"K": rows, "N": columns, "bits": 4, "block_size": block, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])
    return helper.make_graph([node], "product", [x], [y], weights)


if __name__ == "__main__":
    main()
