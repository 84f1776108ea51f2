"""The files of a graph, and the facts about them, read back from the file: nothing that was asked for is trusted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.files import sha256, writing
from compressor.onnx_graphs import walk
from compressor.report import Artifact, Parity, Part, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from exporters.onnx_files.options import Options


def write_files(proto: onnx.ModelProto, folder: Path, path: Path, options: Options) -> dict[Path, Path]:
    """Write the files of a graph into a folder.

    Args:
        proto: The graph, or a draft of it in the folder.
        folder: Of the candidate.
        path: Where the graph's file goes in the end.
        options: Of the export.

    Returns:
        Where each file goes -> where it is: the file of weights, if there is one, and that of the graph.
    """
    from exporters.passes import external_data

    weights = external_data.weight_bytes(proto)
    over = weights > external_data.MAX_MESSAGE_BYTES
    if over and options.external_data is False:
        raise ExportError(
            f"the model's weights take {weights} bytes, and one file holds at most {external_data.MAX_MESSAGE_BYTES}",
            hint="leave out `external_data: false`, or compress the model further",
        )
    candidate, files = folder / path.name, {}
    if over or options.external_data is True:
        data = path.with_name(f"{path.name}.data")
        files[data] = folder / data.name
        light = external_data.draft(proto, files[data], external_data.in_files(folder))
        with writing(path):
            candidate.write_bytes(light.SerializeToString(deterministic=True))
    else:
        external_data.one_file(proto, folder).write(candidate)
    return {**files, path: candidate}


def artifact(candidate: Path, files: Mapping[Path, Path], parity: Parity, seconds: float) -> Artifact:
    """The facts, read back from the file: nothing that was asked for is trusted."""
    from compressor.measure import size
    from compressor.runtimes import loading
    from compressor.runtimes.onnx_runtime import describe
    from exporters.passes import versions

    *data, _ = files.values()
    proto = loading.read(candidate, whole=False)
    opset = walk.opset(proto)
    operators = _operators(proto)
    return Artifact(
        format="onnx",
        path=candidate.name,
        bytes=sum(file.stat().st_size for file in files.values()),
        gzip_bytes=sum(size.gzip_bytes(file) for file in files.values()),
        sha256=sha256(candidate),
        parts=tuple(
            Part(path=file.name, bytes=file.stat().st_size, sha256=sha256(file), purpose="weights") for file in data
        ),
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
