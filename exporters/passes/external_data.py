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
from compressor.onnx_graphs.outline import as_written

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
    """Bytes of all initializers, in the graph itself or in files."""
    return sum(len(tensor.raw_data) + _in_file(tensor).get("length", 0) for tensor in proto.graph.initializer)


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
    _copy(proto, light, but=["graph"])
    _copy(proto.graph, light.graph, but=["initializer"])
    with writing(path), path.open("wb") as file:
        for tensor in proto.graph.initializer:
            other = value(tensor)
            data = tensor.raw_data if other is None else np.ascontiguousarray(other).reshape(-1).view(np.uint8).data
            if len(data) < _LEAST_BYTES:
                light.graph.initializer.append(tensor if other is None else numpy_helper.from_array(other, tensor.name))
                continue
            copied = light.graph.initializer.add()
            _copy(tensor, copied, but=["raw_data"])
            file.write(bytes(-file.tell() % _ALIGNMENT))
            _point(copied, path.name, file.tell(), len(data))
            file.truncate(file.seek(len(data), os.SEEK_CUR)) if zeros else file.write(data)
            copied.data_location = onnx.TensorProto.EXTERNAL
    return light


def one_file(light: onnx.ModelProto, folder: Path) -> WholeFile:
    """The file of the graph of which `light` is a draft in a folder; a weight is in memory only while it is written.

    Byte for byte what `whole(light, folder).SerializeToString(deterministic=True)` gives, which takes twice the model.
    """
    head, tail = _around(light, "graph")
    graph_head, graph_tail = _around(light.graph, "initializer")
    pieces: list[bytes | onnx.TensorProto] = [graph_head]
    for tensor in light.graph.initializer:
        outside = _in_file(tensor).get("length")
        if outside is None:
            content = tensor.SerializeToString(deterministic=True)
            pieces += [_field(light.graph, "initializer", len(content)), content]
            continue
        before, after = _around(tensor, "raw_data", but=("external_data", "data_location"))
        data = _field(tensor, "raw_data", outside)
        size = len(before) + len(data) + outside + len(after)
        pieces += [_field(light.graph, "initializer", size), before, data, tensor, after]
    pieces.append(graph_tail)
    graph = WholeFile(pieces, folder).bytes
    return WholeFile([head, _field(light, "graph", graph), *pieces, tail], folder)


class WholeFile:
    """A graph that is written as one file."""

    def __init__(self, pieces: Sequence[bytes | onnx.TensorProto], folder: Path) -> None:
        """Of bytes, and of weights that lie in a folder."""
        self._pieces, self._folder = pieces, folder

    @property
    def bytes(self) -> int:
        """Of the file."""
        return sum(len(piece) if isinstance(piece, bytes) else _in_file(piece)["length"] for piece in self._pieces)

    def write(self, path: Path) -> None:
        """Write it; raises `OutputError` if it cannot be written."""
        with writing(path), path.open("wb") as file:
            for piece in self._pieces:
                if isinstance(piece, bytes):
                    file.write(piece)
                    continue
                place = _in_file(piece)
                data = np.memmap(self._folder / _location(piece), np.uint8, "r", place["offset"], place["length"])
                file.write(data.data)


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


def in_files(folder: Path) -> Callable[[onnx.TensorProto], NDArray[Any] | None]:
    """The values with which a draft is made of another one in a folder, so that all weights come into its own file."""
    return lambda tensor: _mapped(tensor, folder) if _in_file(tensor) else None


def _mapped(tensor: onnx.TensorProto, folder: Path) -> NDArray[Any]:
    """The values of a tensor that lie in a file, read as they are used."""
    import onnx

    dtype, offset = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), _in_file(tensor)["offset"]
    mapped = np.memmap(folder / _location(tensor), dtype, "r", offset, tuple(tensor.dims))
    return mapped.view(np.ndarray)


def _copy(source: Message, target: Message, *, but: Sequence[str]) -> None:
    """All fields but some."""
    for field, value in source.ListFields():
        if field.name in but:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "ListFields"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _around(message: Message, name: str, but: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """What stands before and behind a field of a message when it is written; fields stand in the order of numbers."""
    place = message.DESCRIPTOR.fields_by_name[name].number
    parts = []
    for is_before in (True, False):
        part = type(message)()
        others = [field.name for field, _ in message.ListFields() if (field.number < place) != is_before]
        _copy(message, part, but=(name, *others, *but))
        parts.append(part.SerializeToString(deterministic=True))
    return parts[0], parts[1]


def _field(message: Message, name: str, size: int) -> bytes:
    """What stands in front of the content of a field of so many bytes."""
    number = message.DESCRIPTOR.fields_by_name[name].number << 3 | 2
    return as_written(number) + as_written(size)


def _in_file(tensor: onnx.TensorProto) -> dict[str, int]:
    """Offset and length of a tensor in another file; nothing if it is in none."""
    return {entry.key: int(entry.value) for entry in tensor.external_data if entry.key in ("offset", "length")}


def _location(tensor: onnx.TensorProto) -> str:
    return str(next(entry.value for entry in tensor.external_data if entry.key == "location"))


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


@contextlib.contextmanager
def hollow(proto: onnx.ModelProto) -> Iterator[tuple[onnx.ModelProto, Path | None]]:
    """Within the block, the same graph without its weights, so that checkers and shape inference copy none.

    Gives it and its path, beside files of as many zeros (which take no room); a small model itself, and no path. A
    draft, whose weights lie in files already, is never given itself.
    """
    if weight_bytes(proto) <= _HOLLOW_FROM_BYTES and not any(map(_in_file, proto.graph.initializer)):
        yield proto, None
        return
    with tempfile.TemporaryDirectory() as folder:
        light, path = draft(proto, Path(folder, "weights"), zeros=True), Path(folder, "model.onnx")
        for tensor in proto.graph.initializer:
            if place := _in_file(tensor):
                beside = Path(folder, _location(tensor))
                beside.touch()
                os.truncate(beside, max(beside.stat().st_size, sum(place.values())))
        path.write_bytes(light.SerializeToString())
        yield light, path
