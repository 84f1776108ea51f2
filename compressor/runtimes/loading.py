"""ONNX files of any origin: read without trust, and first loaded where a crash does no harm."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.onnx_graphs import walk
from compressor.onnx_graphs.outline import outline
from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from google.protobuf.message import Message

_WORKER = Path(__file__).with_name("load_script.py")
_SECONDS = 600
_PIECE = 2**20
_SHOWN = 300
_ORT_SUFFIX = ".ort"
"""ONNX Runtime's own format, which is not a protobuf message."""


_server: child.Server | None = None
_loadable: set[tuple[str, bool]] = set()
"""Digests of what has been loaded before, and whether its constants were folded."""


def ensure(path: Path, *, fold: bool = True) -> None:
    """Make sure that ONNX Runtime can load a file, in a process of its own; each content only once.

    `fold`: see `compressor.runtimes.session.open_session`.

    Raises:
        ExportError: It cannot, or the loading process is ended by a signal, which is named; see also `read`.
    """
    files = parts(path)
    known = _digest(files), fold
    if known in _loadable:
        return
    said = _ask(path, fold)
    if said is not None:
        raise ExportError(
            f"ONNX Runtime cannot load {path}: {said.strip().splitlines()[0][:_SHOWN]}",
            hint="the file is damaged, or uses operators that this version lacks",
        )
    _loadable.add(known)


def parts(path: Path) -> list[Path]:
    """An ONNX file or one of ONNX Runtime's own, and the files with its weights; raises as `read`."""
    return [path] if path.suffix == _ORT_SUFFIX else [path, *_data_files(path, read(path, whole=False))]


def _ask(path: Path, fold: bool) -> str | None:
    """What ONNX Runtime says of a file that it cannot load; the process that loads is started again if it ended."""
    global _server  # noqa: PLW0603 one process for all files: starting one takes a while
    what = f"loading {path} in a process of its own"
    if _server is None or not _server.alive:
        # -P keeps its folder off the import path, where module names could hide others.
        _server = child.Server((sys.executable, "-P", str(_WORKER)), what=what)
    _server.what = what
    answer = _server.ask(
        b"01"[fold : fold + 1] + str(path.absolute()).encode(),
        seconds=_SECONDS,
        hint="ONNX Runtime cannot be trusted with this file: leave out what is special about it (half precision, an "
        "opset or a rare operator), or try another version",
    )
    return answer.decode(errors="replace") or None


def read(path: Path, *, whole: bool = True) -> onnx.ModelProto:
    """The graph in a file, without the weights that lie in other files.

    Args:
        path: The file.
        whole: With all numbers of its weights; if not, large ones are not read, see `compressor.onnx_graphs.outline`.

    Raises:
        ExportError: The file is missing, damaged or no ONNX model, its opset or one of its operators is unknown, or its
            weights are said to lie in a file that is missing, too short or outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ExportError(f"{path} is not a file", hint="export the model first, or correct the path")
    try:
        proto = None if whole else outline(path)
        if proto is None:
            proto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise ExportError(
            f"{path} is not an ONNX file, or is cut off", hint="copy or export it again; compare its size"
        ) from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}", hint="fix its permissions") from error
    if not proto.ir_version or not proto.HasField("graph") or not proto.graph.output:
        raise ExportError(f"{path} holds no ONNX model", hint="give a file that an exporter wrote")
    if (name := next(_no_text(proto), None)) is not None:
        raise ExportError(
            f"{path} has bytes that are not text as the {name} of a part of it", hint="copy or export it again"
        )
    _refuse_unknown_operators(path, proto)
    _data_files(path, proto)
    return proto


def _no_text(message: Message) -> Iterator[str]:
    """Names of the fields for text, at any depth, that hold bytes which are not UTF-8."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if any(isinstance(text, bytes) for text in ((value,) if isinstance(value, (str, bytes)) else value)):
                yield field.name
        elif field.type == field.TYPE_MESSAGE:
            for part in (value,) if hasattr(value, "ListFields") else value:
                yield from _no_text(part)


def _refuse_unknown_operators(path: Path, proto: onnx.ModelProto) -> None:
    import onnx

    own = {(function.domain, function.name) for function in proto.functions}
    for entry in proto.opset_import:
        known = onnx.defs.onnx_opset_version()
        if entry.domain in walk.STANDARD and not 1 <= entry.version <= known:
            raise ExportError(
                f"{path} needs opset {entry.version}, and onnx {onnx.__version__} knows opsets up to {known}",
                hint="update onnx and onnxruntime, or export the model in a lower opset",
            )
    versions = {entry.domain.replace("ai.onnx", "") or "": entry.version for entry in proto.opset_import}
    if "" not in versions:
        return
    for node in walk.nodes(proto.graph):
        known_here = node.domain not in walk.STANDARD or (node.domain, node.op_type) in own
        if not known_here and not _has(node.op_type, versions[""]):
            raise ExportError(
                f"{path} uses the operator `{node.op_type}`, which opset {versions['']} does not have",
                hint="export the model again; what a converter invented must be in a domain of its own",
            )


def _has(operator: str, opset: int) -> bool:
    import onnx

    try:
        return not onnx.defs.get_schema(operator, opset).deprecated
    except onnx.defs.SchemaError:
        return False


def _data_files(path: Path, proto: onnx.ModelProto) -> list[Path]:
    """The files beside `path` that hold weights; each is known to be there and as long as the graph says."""
    import onnx

    found: dict[str, int] = {}
    for graph in walk.graphs(proto.graph):
        tensors = [*graph.initializer, *(value for sparse in graph.sparse_initializer for value in (sparse.values,))]
        tensors += [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                location, end = _place(path, tensor)
                found[location] = max(end, found.get(location, 0))
    for location, end in found.items():
        data = path.parent / location
        if not data.is_file():
            raise ExportError(
                f"{path} keeps weights in `{location}`, which is not beside it",
                hint="copy that file too: the two belong together",
            )
        if path.parent.resolve() not in data.resolve().parents:
            raise _outside(path, location)
        if data.stat().st_size < end:
            raise ExportError(
                f"{path} keeps weights up to byte {end} of `{location}`, which has {data.stat().st_size}",
                hint="copy that file again: it is cut off, or belongs to another model",
            )
    return [path.parent / location for location in sorted(found)]


def _place(path: Path, tensor: onnx.TensorProto) -> tuple[str, int]:
    """The file that holds a tensor, and where it ends there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    place = PurePosixPath(location.replace("\\", "/"))
    if not location or place.is_absolute() or ".." in place.parts or ":" in location:
        raise _outside(path, location)
    numbers = [entries.get(key, "0") for key in ("offset", "length")]
    if not all(number.isdecimal() for number in numbers):
        raise ExportError(
            f"{path} gives `{'`, `'.join(numbers)}` as the place of `{tensor.name}`", hint="export the model again"
        )
    return location, sum(int(number) for number in numbers)


def _outside(path: Path, location: str) -> ExportError:
    return ExportError(
        f"{path} wants to read weights from `{location}`, which is outside its folder",
        hint="do not trust this file: weights belong in a file beside it",
    )


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()
