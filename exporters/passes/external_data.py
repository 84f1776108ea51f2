"""Weights in a file beside the graph, for models that are larger than one protobuf message may be."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx
    from google.protobuf.message import Message
    from numpy.typing import NDArray

MAX_MESSAGE_BYTES = 2**31 - 1
"""Protobuf's limit for one message, and so for a model in one file."""
_LEAST_BYTES = 1024
"""Smaller tensors stay in the graph: sizes and axes, which whoever reads the graph wants to know."""
_ALIGNMENT = 64
"""Each tensor starts at a multiple of it, so that a runtime may map the file into memory."""


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of all initializers in the graph itself."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def split(proto: onnx.ModelProto, location: str) -> bytes:
    """Move all but small weights out of a graph, in place.

    Args:
        proto: The model.
        location: The name of the file that will hold them, beside the graph's.

    Returns:
        The content of that file.
    """
    import onnx

    pieces, offset = [], 0
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) < _LEAST_BYTES:
            continue
        padding = -offset % _ALIGNMENT
        pieces += [bytes(padding), tensor.raw_data]
        offset += padding
        _point(tensor, location, offset, len(tensor.raw_data))
        offset += len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    return b"".join(pieces)


def draft(
    proto: onnx.ModelProto, path: Path, value: Callable[[onnx.TensorProto], NDArray[Any] | None] = lambda _: None
) -> onnx.ModelProto:
    """The same graph with all but small weights in a file, which any number of graphs made of it may share.

    Weights go through memory one after the other, and `proto` is not changed: protobuf gives the memory of a field that
    is cleared back only with the whole message. Weights that are in another file of the folder stay there.

    Args:
        proto: The model.
        path: Gets the weights; the graph belongs beside it.
        value: What another weight gets instead, of its shape and type; None for its own.
    """
    import onnx
    from onnx import numpy_helper

    light = onnx.ModelProto()
    _copy(proto, light, but="graph")
    _copy(proto.graph, light.graph, but="initializer")
    with path.open("wb") as file:
        for tensor in proto.graph.initializer:
            other = value(tensor)
            data = tensor.raw_data if other is None else other.tobytes()
            if len(data) < _LEAST_BYTES:
                light.graph.initializer.append(tensor if other is None else numpy_helper.from_array(other, tensor.name))
                continue
            copied = light.graph.initializer.add()
            _copy(tensor, copied, but="raw_data")
            file.write(bytes(-file.tell() % _ALIGNMENT))
            _point(copied, path.name, file.tell(), file.write(data))
            copied.data_location = onnx.TensorProto.EXTERNAL
    return light


def _copy(source: Message, target: Message, *, but: str) -> None:
    """All fields but one."""
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "ListFields"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


@contextlib.contextmanager
def small(proto: onnx.ModelProto) -> Iterator[Path | None]:
    """Within the block, a model over the limit has no weights, so that it can be checked; others stay as they are.

    Gives the path of the model without weights, beside a file of as many zeros (which takes no room), or None.
    """
    import onnx

    if weight_bytes(proto) <= MAX_MESSAGE_BYTES:
        yield None
        return
    kept = [(tensor, tensor.raw_data) for tensor in proto.graph.initializer if len(tensor.raw_data) >= _LEAST_BYTES]
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "weights").open("wb") as zeros:
            zeros.truncate(max((len(data) for _, data in kept), default=0))
        try:
            for tensor, data in kept:
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                _point(tensor, "weights", 0, len(data))
            path = Path(folder) / "model.onnx"
            path.write_bytes(proto.SerializeToString())
            yield path
        finally:
            for tensor, data in kept:
                del tensor.external_data[:]
                tensor.ClearField("data_location")
                tensor.raw_data = data
