"""Sizes of models (in parameters) and of files (in bytes)."""

from __future__ import annotations

import gzip
import io
import shutil
from typing import TYPE_CHECKING

import torch
from torch import nn

from compressor.errors import ExportError
from compressor.report import LayerSparsity

if TYPE_CHECKING:
    from pathlib import Path

_GZIP_LEVEL = 9


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters of `model` and those that are not zero; a parameter shared by several modules counts once."""
    counted = layers(model)
    return sum(layer.parameters for layer in counted), sum(layer.nonzeros for layer in counted)


def layers(model: nn.Module) -> tuple[LayerSparsity, ...]:
    """Size and non-zeros of every parameter, a shared one under its first name."""
    return tuple(
        LayerSparsity(
            name=name,
            shape=tuple(parameter.shape),
            parameters=parameter.numel(),
            nonzeros=int(torch.count_nonzero(parameter.detach())),
        )
        for name, parameter in model.named_parameters()
    )


def file_bytes(path: Path) -> int:
    """Size of a file in bytes; raises `ExportError` if it cannot be read."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def gzip_bytes(path: Path) -> int:
    """Size in bytes after gzip -9, as an app store or a web server would send it; the same for the same file."""
    sink = _ByteCounter()
    try:
        with path.open("rb") as source, gzip.GzipFile("", "wb", _GZIP_LEVEL, fileobj=sink, mtime=0) as packed:
            shutil.copyfileobj(source, packed)
    except OSError as error:
        raise _unreadable(path, error) from error
    return sink.total


class _ByteCounter(io.RawIOBase):
    """A sink that counts what is written and keeps nothing."""

    def __init__(self) -> None:
        """Start at zero."""
        self.total = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: object) -> int:
        """Count the bytes of `data`."""
        written = memoryview(data).nbytes  # type: ignore[arg-type]
        self.total += written
        return written


def _unreadable(path: Path, error: OSError) -> ExportError:
    return ExportError(f"{path} cannot be read: {error.strerror}", hint="export the model first, or correct the path")
