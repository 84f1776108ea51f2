"""Which release of ONNX Runtime reads which opset, version of the file format and operator of its own.

Tried with a GRU in opsets 17 to 23 and formats 8 to 11 in releases 1.15.1, 1.16.3, 1.17.3, 1.18.1, 1.19.2, 1.20.1,
1.21.1, 1.22.1 and 1.23.2, which refuse what is newer than what they know, and with files in 8 and 4 bits in the first
four. What is older than 1.15 is from https://onnxruntime.ai/docs/reference/compatibility.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

OPSETS = {17: (1, 12), 18: (1, 14), 19: (1, 15), 20: (1, 17), 21: (1, 18), 22: (1, 21), 23: (1, 23)}
"""Opset -> the first release that reads it."""
IR_VERSIONS = {8: (1, 12), 9: (1, 15), 10: (1, 18), 11: (1, 23)}
"""Version of the file format -> the first release that reads it."""
OPERATORS = {"MatMulNBits": (1, 17)}
"""Operator of ONNX Runtime's own -> the first release that reads it; 1.16 has one of that name without these inputs."""


def needs(opset: int, ir_version: int, operators: Iterable[str]) -> str:
    """The first release that reads a file, such as `ONNX Runtime 1.14`."""
    needed = [OPERATORS[name] for name in operators if name in OPERATORS]
    major, minor = max(OPSETS[opset], IR_VERSIONS[ir_version], *needed)
    return f"ONNX Runtime {major}.{minor}"
