"""The files of a graph, and the facts about them, read back from the file: nothing that was asked for is trusted."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.files import writing
from compressor.onnx_graphs import walk
from compressor.report import Artifact, Parity, Part, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from exporters.onnx_files.options import Options


def contents(proto: onnx.ModelProto, path: Path, options: Options) -> dict[Path, bytes]:
    """The files of a graph: the data file, if it has one, and the file itself at `path`."""
    from exporters.passes import external_data

    weights = external_data.weight_bytes(proto)
    over = weights > external_data.MAX_MESSAGE_BYTES
    if over and options.external_data is False:
        raise ExportError(
            f"the model's weights take {weights} bytes, and one file holds at most {external_data.MAX_MESSAGE_BYTES}",
            hint="leave out `external_data: false`, or compress the model further",
        )
    data = path.with_name(f"{path.name}.data")
    files = {}
    if over or options.external_data is True:
        proto = copy.deepcopy(proto)  # rounding goes on with the graph as it is
        files[data] = external_data.split(proto, data.name)
    return {**files, path: proto.SerializeToString(deterministic=True)}


def write_beside(candidate: Path, files: Mapping[Path, bytes]) -> None:
    """Write the files of a graph into the folder of its candidate."""
    for path, content in files.items():
        with writing(path):
            (candidate.parent / path.name).write_bytes(content)


def artifact(candidate: Path, files: Mapping[Path, bytes], parity: Parity, seconds: float) -> Artifact:
    """The facts, read back from the file: nothing that was asked for is trusted."""
    from compressor.measure import size
    from compressor.runtimes import loading
    from compressor.runtimes.onnx_runtime import describe
    from exporters.passes import versions

    *data, (_, content) = files.items()
    proto = loading.read(candidate)
    opset = walk.opset(proto)
    operators = _operators(proto)
    return Artifact(
        format="onnx",
        path=candidate.name,
        bytes=sum(len(content) for content in files.values()),
        gzip_bytes=sum(size.gzip_bytes(candidate.parent / path.name) for path in files),
        sha256=hashlib.sha256(content).hexdigest(),
        parts=tuple(_part(path, weights) for path, weights in data),
        needs=versions.needs(opset, proto.ir_version, operators),
        opset=opset,
        ir_version=proto.ir_version,
        inputs=tuple(_describe(value) for value in proto.graph.input),
        outputs=tuple(_describe(value) for value in proto.graph.output),
        operators=operators,
        parity=parity,
        runtime=describe(),
        seconds=seconds,
    )


def _part(path: Path, content: bytes) -> Part:
    return Part(path=path.name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), purpose="weights")


def _operators(proto: onnx.ModelProto) -> dict[str, int]:
    """Operator type -> number of nodes, sorted by name, bodies of control flow included."""
    counts = Counter(node.op_type for node in walk.nodes(proto.graph))
    return dict(sorted(counts.items()))


def _describe(value: onnx.ValueInfoProto) -> TensorInfo:
    """Name, type and shape of an input or output; a dynamic axis by its name, `?` if it has none."""
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or "?"
        for dimension in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorInfo(name=value.name, dtype=dtype, shape=shape)
