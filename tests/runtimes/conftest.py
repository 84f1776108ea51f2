"""The small ONNX files of the tests of measurements."""

from tests.measure.conftest import linear, write

__all__ = ["linear", "write"]
