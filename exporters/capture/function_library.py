"""PyTorch's library of ONNX functions, kept from export to export.

`torch.onnx.export` reads the library anew every time, which takes longer than all the rest of the export of a small
model. The library depends on the opset alone.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_libraries: dict[int, Any] = {}
"""Opset -> its functions."""


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within the block, `torch.onnx.export` reads the library of an opset once a process.

    It has no public argument for this. If a version of PyTorch keeps the library elsewhere, exports are slower and the
    same.
    """
    registry = _registry()
    reader = vars(registry).get("from_torchlib")
    if not isinstance(reader, classmethod):
        yield
        return
    read = registry.from_torchlib

    def from_torchlib(opset_version: int) -> Any:
        if opset_version not in _libraries:
            _libraries[opset_version] = read(opset_version=opset_version)
        return _libraries[opset_version]

    with replaced(registry, "from_torchlib", staticmethod(from_torchlib)):
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the block, a module or class has another attribute of a name that it has."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _registry() -> Any:
    """The class that reads the library; `object` if this version of PyTorch has none of the name."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return object
    return ONNXRegistry
