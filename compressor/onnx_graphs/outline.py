"""The graph in a file without the numbers of its large weights, which are most of the file and are not read.

A message of protobuf is a row of fields, each with its number, a type, and its length if that is open. So whatever lies
in a file can be passed by without being looked at.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

LEAST_BYTES: Final = 1 << 16
"""Of the numbers that are left out: sizes, axes and whatever else a graph is read by take far less."""
_NUMBERS_OF_WEIGHTS = ("graph", "initializer", "raw_data")
_VARINT, _OPEN_LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
"""Type of a field -> bytes of what it holds."""
_LONGEST = 10
"""Bytes of a number."""


def outline(path: Path) -> onnx.ModelProto | None:
    """The model in an ONNX file, its initializers of `LEAST_BYTES` or more without `raw_data`.

    None if the file is not a row of fields: whoever reads all of it is told why.

    Raises:
        OSError: The file cannot be read.
        google.protobuf.message.DecodeError: It holds another message.
    """
    import onnx

    with path.open("rb") as file:
        if not path.stat().st_size:
            return None
        inside = []
        message = onnx.ModelProto.DESCRIPTOR
        for name in _NUMBERS_OF_WEIGHTS:
            field = message.fields_by_name[name]
            inside.append(field.number)
            message = field.message_type
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                light = _without(content, 0, len(content), inside)
            except _BrokenError:
                return None
    model: onnx.ModelProto = onnx.ModelProto.FromString(light)
    return model


class _BrokenError(Exception):
    """A field ends behind the end of the message, or has no known type."""


@dataclass(frozen=True)
class _Field:
    """A field, and where it lies."""

    number: int
    type: int
    start: int
    content: int
    """Where what it holds starts, behind its length."""
    stop: int


def _without(content: mmap.mmap, start: int, stop: int, inside: list[int]) -> bytes:
    """A message without a field in fields of it: `inside` has their numbers, from the outermost one on."""
    kept, (wanted, *deeper) = bytearray(), inside
    for field in _fields(content, start, stop):
        if field.number != wanted or field.type != _OPEN_LENGTH:
            kept += content[field.start : field.stop]
        elif deeper:
            part = _without(content, field.content, field.stop, deeper)
            kept += as_written(field.number << 3 | _OPEN_LENGTH) + as_written(len(part)) + part
        elif field.stop - field.content < LEAST_BYTES:
            kept += content[field.start : field.stop]
    return bytes(kept)


def _fields(content: mmap.mmap, start: int, stop: int) -> Iterator[_Field]:
    while start < stop:
        tag, place = _number(content, start, stop)
        kind = tag & 7
        if kind == _VARINT:
            _, end = _number(content, place, stop)
        elif kind == _OPEN_LENGTH:
            length, place = _number(content, place, stop)
            end = place + length
        elif kind in _FIXED:
            end = place + _FIXED[kind]
        else:
            raise _BrokenError
        if end > stop:
            raise _BrokenError
        yield _Field(tag >> 3, kind, start, place, end)
        start = end


def _number(content: mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    """A number of open length, and where it ends: seven bits in each byte, the lowest first."""
    value = 0
    for index, place in enumerate(range(start, min(stop, start + _LONGEST))):
        byte = content[place]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + 1
    raise _BrokenError


def as_written(value: int) -> bytes:
    """A number of a message as it is written, seven bits in each byte."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
