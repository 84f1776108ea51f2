"""The program pnnx, which turns ONNX and TorchScript into files of ncnn: its path, its arguments, its example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.runtimes import environments

_KEPT = 233
"""In pnnx's example, of a blob that has every axis of the model."""
_WORDS = {"float32": "f32", "float64": "f64", "float16": "f16", "int64": "i64", "int32": "i32", "bool": "u8"}


def find_program(environment: environments.Found) -> Path:
    """Pnnx itself; its Python module would want PyTorch in that environment."""
    package = child.run(
        [str(environment.python), "-P", "-c", "import importlib.util; print(importlib.util.find_spec('pnnx').origin)"],
        seconds=60,
        what="the search for pnnx",
    ).strip()
    for name in ("pnnx", "bin/pnnx", "pnnx.exe"):
        program = Path(package).parent / name
        if program.is_file():
            return program
    raise ExportError(f"there is no program pnnx in {Path(package).parent}", hint="`compressor runtimes install ncnn`")


def dropped_axes(example: str) -> dict[str, int]:
    """Blob -> the axis of samples that the net does not have, from pnnx's own example; those that keep all are missing.

    Whether pnnx leaves that axis out depends on the operators of the net.
    """
    matches = re.findall(r"ex\.input\(\"(in\d+)\", .*batch_index=(\d+)\)|(out\d+)\.numpy\(batch_index=(\d+)\)", example)
    named = {blob or other: int(first or second) for blob, first, other, second in matches}
    return {blob: axis for blob, axis in named.items() if axis != _KEPT}


def shapes_of(example: Sequence[Tensor]) -> str:
    """Shapes and types as pnnx takes them: [1,20,40]f32,[1]i64."""
    return ",".join(
        f"[{','.join(map(str, part.shape))}]{_WORDS[str(part.dtype).removeprefix('torch.')]}" for part in example
    )
