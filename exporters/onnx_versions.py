"""Which release of ONNX Runtime reads which opset and version of the file format.

Opsets 21 to 23 and formats 8 to 11 were tried with releases 1.19.2, 1.20.1, 1.21.1, 1.22.1 and 1.23.2, which refuse
what is newer than what they know; the others are from https://onnxruntime.ai/docs/reference/compatibility.html.
"""

from __future__ import annotations

OPSETS = {17: (1, 12), 18: (1, 14), 19: (1, 15), 20: (1, 17), 21: (1, 18), 22: (1, 21), 23: (1, 23)}
"""Opset -> the first release that reads it."""
IR_VERSIONS = {8: (1, 12), 9: (1, 15), 10: (1, 18), 11: (1, 23)}
"""Version of the file format -> the first release that reads it."""


def needs(opset: int, ir_version: int) -> str:
    """The first release that reads a file, such as `ONNX Runtime 1.14`."""
    major, minor = max(OPSETS[opset], IR_VERSIONS[ir_version])
    return f"ONNX Runtime {major}.{minor}"
