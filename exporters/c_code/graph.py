"""What is known of a graph before any C is written: sizes, which values share memory, and where each of them lies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir

from compressor.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Kind = Literal["float", "int32_t"]
"""The C type of a value's elements; integers of 64 bits and booleans have 32 here."""
HINT = "use `format: ort`, or leave out what makes this operator"

_FLOATS = (ir.DataType.FLOAT,)
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


@dataclass(frozen=True)
class Place:
    """Where a value lies: in a constant, an argument or the work area, from some element on."""

    base: str
    """A C expression for the first element of what holds it."""
    shape: tuple[int, ...]
    kind: Kind
    offset: int = 0
    array: NDArray[Any] | None = field(default=None, compare=False)
    """Of a constant."""

    @property
    def pointer(self) -> str:
        """A C expression for its first element."""
        return f"{self.base} + {self.offset}" if self.offset else self.base

    def at(self, index: str = "0", start: int = 0) -> str:
        """A C expression for the element at an index, counted from its element `start` on."""
        first = self.offset + start
        return f"{self.base}[{index if not first else first if index == '0' else f'{first} + {index}'}]"

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """How far apart neighbours along each axis lie."""
        return strides_of(self.shape)


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Of an array without gaps, last axis innermost."""
    steps = [1]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * size)
    return tuple(reversed(steps)) if shape else ()


def shape_of(value: ir.Value, where: str) -> tuple[int, ...]:
    """The sizes of a value.

    Raises:
        ExportError: One of them is not known.
    """
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        raise ExportError(
            f"{where}: the size of `{value.name}` is not known, and C without a heap needs it",
            hint="give `length: N`, or `form: step`; a state that grows with the sequence has no C",
        )
    return tuple(int(size) for size in value.shape)  # type: ignore[arg-type]


def kind_of(value: ir.Value, where: str) -> Kind:
    """The C type of a value's elements.

    Raises:
        ExportError: There is none for them here.
    """
    if value.dtype in _FLOATS:
        return "float"
    if value.dtype in _INTEGERS:
        return "int32_t"
    raise ExportError(f"{where}: `{value.name}` is of type {value.dtype}, which is not supported in C", hint=HINT)


def where(node: ir.Node) -> str:
    """How errors and comments name a node."""
    return f"{node.op_type} `{node.name or (node.outputs[0].name if node.outputs else '')}`"


class Arena:
    """Places in one work area of floats, reused when what lay there is not needed any more."""

    def __init__(self) -> None:
        """An empty one."""
        self.size = 0
        self._taken: dict[int, int] = {}

    def take(self, size: int) -> int:
        """The first gap that is large enough; gives its first element."""
        start = 0
        for taken in sorted(self._taken):
            if taken - start >= size:
                break
            start = max(start, taken + self._taken[taken])
        self._taken[start] = max(size, 1)
        self.size = max(self.size, start + size)
        return start

    def give_back(self, start: int) -> None:
        """It may be used again."""
        del self._taken[start]


def constant(value: ir.Value) -> NDArray[Any] | None:
    """The elements of a constant, as C holds them; None if the value is computed."""
    if value.const_value is None:
        return None
    array = value.const_value.numpy()
    if array.dtype == np.float32:
        return array
    if array.dtype.kind in "iub":
        return np.clip(array.astype(np.int64), -(2**31), 2**31 - 1).astype(np.int32)
    return array


def ints(value: ir.Value | None, node: ir.Node) -> list[int] | None:
    """The numbers of a constant input; None if it is left out.

    Raises:
        ExportError: It is computed.
    """
    if value is None:
        return None
    array = constant(value)
    if array is None:
        raise ExportError(f"{where(node)}: its input `{value.name}` is computed; C needs it as a constant", hint=HINT)
    return [int(item) for item in array.ravel()]


def attributes(node: ir.Node) -> Mapping[str, Any]:
    """Its attributes as Python values."""
    return {name: item.value for name, item in node.attributes.items()}
