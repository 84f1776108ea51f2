"""The runtimes and converters that this package knows, with the exact versions that are installed."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import UsageError


@dataclass(frozen=True)
class Runtime:
    """A runtime, or a converter."""

    name: str
    """As in `compressor runtimes install NAME`, and the extra of this package."""
    title: str
    modules: tuple[str, ...]
    """Import names, all of which an environment must have."""
    requirements: tuple[str, ...]
    """What an environment of its own gets: exact versions, and everything that they need, for nothing else follows."""
    purpose: str
    dependencies: bool = False
    """Whether what the requirements name as dependencies is installed too."""
    shares_torch: bool = False
    """Whether its environment sees the packages of this one behind its own: PyTorch is gigabytes, and a program is
    best read by the version that saved it. Where its pins want another PyTorch, it gets that as its own."""
    npm: tuple[str, ...] = ()
    """Packages of npm, if it runs in a browser; this interpreter drives that."""
    compiles: bool = False
    """Whether it is this machine's C compiler, and no package."""


_NUMPY = "numpy>=2,<3"

RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", "ONNX Runtime", ("onnxruntime",), (), "`format: onnx` and `format: ort`"),
        Runtime("c", "C", ("ctypes", "numpy"), (), "`format: c`, with this machine's C compiler", compiles=True),
        # Without its dependency `openvino-telemetry`, which reports use to its makers; it runs as well without.
        Runtime("openvino", "OpenVINO", ("openvino",), ("openvino==2026.4.1", _NUMPY), "checks ONNX files"),
        Runtime("web", "ONNX Runtime Web", (), (), "checks ONNX files in Chromium", npm=("onnxruntime-web@1.30.0",)),
        Runtime(
            "webgpu",
            "ONNX Runtime Web on WebGPU",
            (),
            (),
            "checks ONNX files in Chromium, if it has WebGPU",
            npm=("onnxruntime-web@1.30.0",),
        ),
        Runtime("tract", "tract", ("tract",), ("tract==0.23.9", _NUMPY), "checks ONNX files"),
        # Never its console scripts: these install another package, which reports use, as soon as they are imported.
        Runtime("mnn", "MNN", ("MNN", "_tools"), ("MNN==3.6.1", _NUMPY), "`format: mnn`"),
        # Without dependencies of pnnx: only its program is used, which holds its own libtorch.
        Runtime("ncnn", "ncnn", ("ncnn", "pnnx"), ("ncnn==1.0.20261020", "pnnx==20261020", _NUMPY), "`format: ncnn`"),
        Runtime(
            "litert",
            "LiteRT",
            ("ai_edge_litert", "litert_torch", "ai_edge_quantizer"),
            ("litert-torch==0.10.0", "ai-edge-litert==2.3.0", "ai-edge-quantizer==0.10.0"),
            "`format: litert`",
            dependencies=True,
            shares_torch=True,
        ),
        Runtime(
            "executorch",
            "ExecuTorch",
            ("executorch",),
            ("executorch==1.5.1",),
            "`format: executorch`",
            dependencies=True,
            shares_torch=True,
        ),
    )
}


def known(name: str) -> Runtime:
    """The runtime of that name; raises `UsageError` if there is none."""
    try:
        return RUNTIMES[name]
    except KeyError:
        raise UsageError(f"unknown runtime `{name}`", hint=f"one of {', '.join(RUNTIMES)}") from None
