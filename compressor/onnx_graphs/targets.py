"""What is known of each target: the operators that it takes, and the source of that.

Of ONNX Runtime's accelerators a table lists what they take, and all else runs on the CPU. Of other runtimes the table
lists what failed or gave wrong numbers when it was measured; a file that holds such a node does not run there at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.onnx_graphs import failures
from compressor.onnx_graphs.rules import COREML, NNAPI, XNNPACK, nnapi_type

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from compressor.onnx_graphs.failures import Failure
    from compressor.onnx_graphs.rules import Rule


@dataclass(frozen=True)
class Target:
    """A runtime or accelerator."""

    name: str
    title: str
    source: str
    """Where the table comes from."""
    takes: frozenset[str] | None = None
    """Operators, as `Conv` or `com.microsoft:FusedMatMul`; None if everything is taken that is not in `fails`."""
    fails: tuple[Failure, ...] = ()
    """Nodes that are known to fail."""
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    """Operator -> under which conditions it is taken."""
    every: tuple[Rule, ...] = ()
    """Conditions of all operators."""
    fixed_shapes: bool = False
    """Only nodes whose inputs have known sizes are taken."""
    largest_opset: int | None = None
    caveats: Mapping[str, str] = field(default_factory=dict)
    """Operator -> a condition in the table that is not checked here."""


_ONNXRUNTIME = "onnxruntime.tools.mobile_helpers"
_MEASURED = "measured by this project with {}, see docs/concepts/targets.md"
_QNN = """
Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos
CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp Expand Flatten Floor Gather GatherElements GatherND
Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample HardSigmoid HardSwish
InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul
Max MaxPool Mean Min Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear RandomUniformLike Reciprocal ReduceL2
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round RMSNormalization STFT ScatterElements
ScatterND Sigmoid Sign Sin Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK
Transpose Unsqueeze Upsample Where com.microsoft:FusedMatMul
"""
_XNNPACK = "AveragePool Conv ConvTranspose Gemm MatMul MaxPool QLinearConv Resize Softmax"
_NAMES = ("ort-cpu", "xnnpack", "nnapi", "coreml", "qnn", "ncnn", "mnn", "litert")


def names() -> tuple[str, ...]:
    """All targets."""
    return _NAMES


def get(name: str) -> Target:
    """The target of that name; raises `UsageError` if there is none."""
    if name not in _NAMES:
        raise UsageError(f"unknown target `{name}`", hint=f"use one of {', '.join(_NAMES)}")
    return _mobile(name) if name in ("nnapi", "coreml") else _TABLES[name]


def _mobile(name: str) -> Target:
    """NNAPI and Core ML, from the tables that come with the onnxruntime package."""
    from pathlib import Path

    import onnxruntime

    file = {"nnapi": "nnapi_supported_ops.md", "coreml": "coreml_supported_mlprogram_ops.md"}[name]
    rules = NNAPI if name == "nnapi" else COREML
    path = Path(onnxruntime.__file__).parent / "tools" / "mobile_helpers" / file
    table = _table(path)
    title = {"nnapi": "NNAPI (Android) through ONNX Runtime", "coreml": "Core ML (MLProgram) through ONNX Runtime"}[
        name
    ]
    return Target(
        name,
        title,
        f"{_ONNXRUNTIME}/{file} of onnxruntime {onnxruntime.__version__}",
        takes=frozenset(table),
        fixed_shapes=True,
        rules=rules,
        every=(nnapi_type,) if name == "nnapi" else (),
        caveats={operator: note for operator, note in table.items() if note and operator not in rules},
    )


def _table(path: Path) -> dict[str, str]:
    """Operator -> note, from lines such as `|ai.onnx:Conv|Only 2D.|`."""
    if not path.is_file():
        raise UsageError(
            f"the installed onnxruntime has no table {path.name}", hint="install the plain onnxruntime package"
        )
    notes = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.strip().split("|")
        if len(cells) == 4 and cells[1].startswith(("ai.onnx", "com.")):
            domain, _, operator = cells[1].replace("ai.onnx.", "ai.onnx:").partition(":")
            operator = _SPELLED.get(operator, operator)
            notes[operator if domain == "ai.onnx" else cells[1]] = cells[2].replace("<br/>", " ")
    return notes


_SPELLED = {"Argmax": "ArgMax"}
"""As a table has it -> the operator."""
_TABLES = {
    "ort-cpu": Target("ort-cpu", "ONNX Runtime, CPU", "the installed onnxruntime, which loads the file"),
    "xnnpack": Target(
        "xnnpack",
        "XNNPACK through ONNX Runtime",
        "kernels in onnxruntime/core/providers/xnnpack of ONNX Runtime's repository",
        takes=frozenset(_XNNPACK.split()),
        fixed_shapes=True,
        rules=XNNPACK,
    ),
    "qnn": Target(
        "qnn",
        "QNN (Qualcomm) through ONNX Runtime",
        "builders in onnxruntime/core/providers/qnn/builder/op_builder_factory.cc of ONNX Runtime's repository",
        takes=frozenset(_QNN.split()),
        fixed_shapes=True,
    ),
    "ncnn": Target(
        "ncnn",
        "ncnn, through pnnx from ONNX",
        _MEASURED.format("ncnn and pnnx of October 2026"),
        fails=failures.NCNN,
        largest_opset=22,
    ),
    "mnn": Target(
        "mnn",
        "MNN, converted from ONNX",
        _MEASURED.format("MNN 3.6.1"),
        fails=failures.MNN,
        largest_opset=22,
    ),
    "litert": Target(
        "litert",
        "LiteRT, through onnx2tf",
        _MEASURED.format("onnx2tf 2.6.9 and ai-edge-litert 2.3.0"),
        fails=failures.LITERT,
        fixed_shapes=True,
        largest_opset=22,
    ),
}
