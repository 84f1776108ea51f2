"""Weights in a file beside the graph, for models that are larger than one protobuf message may be."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.files import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx
    from google.protobuf.message import Message
    from numpy.typing import NDArray

MAX_MESSAGE_BYTES = 2**31 - 1
"""Protobuf's limit for one message, and so for a model in one file."""
_LEAST_BYTES = 1024
"""Smaller tensors stay in the graph: sizes and axes, which whoever reads the graph wants to know."""
_HOLLOW_FROM_BYTES = 1 << 24
"""Of weights; copies of fewer do not matter."""
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
    proto: onnx.ModelProto,
    path: Path,
    value: Callable[[onnx.TensorProto], NDArray[Any] | None] = lambda _: None,
    *,
    zeros: bool = False,
) -> onnx.ModelProto:
    """The same graph with all but small weights in a file, which any number of graphs made of it may share.

    Weights go through memory one after the other, and `proto` is not changed: protobuf gives the memory of a field that
    is cleared back only with the whole message. Weights that are in another file of the folder stay there.

    Args:
        proto: The model.
        path: Gets the weights; the graph belongs beside it.
        value: What another weight gets instead, of its shape and type; None for its own.
        zeros: The file has zeros in place of weights, which take no room.

    Raises:
        OutputError: The file cannot be written.
    """
    import onnx
    from onnx import numpy_helper

    light = onnx.ModelProto()
    _copy(proto, light, but="graph")
    _copy(proto.graph, light.graph, but="initializer")
    with writing(path), path.open("wb") as file:
        for tensor in proto.graph.initializer:
            other = value(tensor)
            data = tensor.raw_data if other is None else other.tobytes()
            if len(data) < _LEAST_BYTES:
                light.graph.initializer.append(tensor if other is None else numpy_helper.from_array(other, tensor.name))
                continue
            copied = light.graph.initializer.add()
            _copy(tensor, copied, but="raw_data")
            file.write(bytes(-file.tell() % _ALIGNMENT))
            _point(copied, path.name, file.tell(), len(data))
            file.truncate(file.seek(len(data), os.SEEK_CUR)) if zeros else file.write(data)
            copied.data_location = onnx.TensorProto.EXTERNAL
    return light


def whole(light: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The graph of which `light` is a draft in a folder: with all weights in it; `light` is not changed."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(light)
    onnx.external_data_helper.load_external_data_for_model(proto, str(folder))
    for tensor in proto.graph.initializer:
        tensor.ClearField("data_location")
    return proto


class Values(Mapping[str, "NDArray[Any]"]):
    """Weights by their names; one that lies in a file is in memory only as long as someone holds it."""

    def __init__(self, tensors: Sequence[onnx.TensorProto], folder: Path | None) -> None:
        """Of a graph, or of a draft in a folder."""
        import onnx

        self._folder = folder
        self._in_files = {t.name: t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL}
        self._in_graph = {t.name: onnx.numpy_helper.to_array(t) for t in tensors if t.name not in self._in_files}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The values, mapped from the file anew."""
        if name in self._in_graph:
            return self._in_graph[name]
        assert self._folder is not None
        return _mapped(self._in_files[name], self._folder)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        yield from self._in_graph
        yield from self._in_files

    def __len__(self) -> int:
        """How many weights there are."""
        return len(self._in_graph) + len(self._in_files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a weight, which is not read."""
        return tuple(self._in_files[name].dims) if name in self._in_files else self._in_graph[name].shape


def _mapped(tensor: onnx.TensorProto, folder: Path) -> NDArray[Any]:
    """The values of a tensor that lie in a file, read as they are used."""
    import onnx

    place = {entry.key: entry.value for entry in tensor.external_data}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    mapped = np.memmap(folder / place["location"], dtype, "r", int(place["offset"]), tuple(tensor.dims))
    return mapped.view(np.ndarray)


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
def hollow(proto: onnx.ModelProto) -> Iterator[tuple[onnx.ModelProto, Path | None]]:
    """Within the block, the same graph without its weights, so that checkers and shape inference copy none.

    Gives it and its path, beside a file of as many zeros (which takes no room); a small model itself, and no path.
    """
    if weight_bytes(proto) <= _HOLLOW_FROM_BYTES:
        yield proto, None
        return
    with tempfile.TemporaryDirectory() as folder:
        light, path = draft(proto, Path(folder, "weights"), zeros=True), Path(folder, "model.onnx")
        path.write_bytes(light.SerializeToString())
        yield light, path
