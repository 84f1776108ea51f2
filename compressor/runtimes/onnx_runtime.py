"""Exported files behind the same call as a PyTorch model."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.errors import ExportError, UsageError
from compressor.report import TensorInfo
from compressor.runtimes import loading
from compressor.runtimes.integer_products import saturate
from compressor.runtimes.resources import check_threads
from compressor.runtimes.session import PROVIDER, first_line, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(int16)": torch.int16,
    "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}

Feed = dict[str, NDArray[Any]]


def describe() -> str:
    """The runtime under every measurement, for instance `ONNX Runtime 1.22.0, CPU`."""
    return f"ONNX Runtime {onnxruntime.__version__}, CPU"


class ModelFile(ABC):
    """An exported file, called like a model: CPU tensors in, CPU tensors out.

    Nothing is converted silently: an input of another dtype, rank or fixed size than the file declares is an error.
    """

    runtime: str
    """Name and version of what runs it."""

    def __init__(
        self, path: Path, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], metadata: dict[str, str]
    ) -> None:
        """For a file whose inputs, outputs and metadata are known."""
        self.path = path
        self.inputs, self.outputs, self.metadata = inputs, outputs, metadata
        self.input_names: tuple[str, ...] = tuple(item.name for item in inputs)
        self.output_names: tuple[str, ...] = tuple(item.name for item in outputs)

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs for `inputs`, in the file's order; a single output comes bare.

        Raises:
            UsageError: inputs that the file does not take.
            ExportError: the file fails on inputs that it declares to take.
        """
        outputs = tuple(self._tensor(array) for array in self.run(self.feed(inputs)))
        return outputs[0] if len(outputs) == 1 else outputs

    def feed(self, inputs: Sequence[Tensor]) -> Feed:
        """`inputs` checked and as arrays under the file's names; raises `UsageError` if they do not fit."""
        if len(inputs) != len(self.inputs):
            names = ", ".join(self.input_names)
            raise UsageError(
                f"{self.path} takes {len(self.inputs)} inputs ({names}), got {len(inputs)}",
                hint="give the inputs in the order of the file's",
            )
        return {
            declared.name: self._array(declared, value) for declared, value in zip(self.inputs, inputs, strict=True)
        }

    def cast(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`inputs`, in float16 if they are float32 and the file takes float16."""
        taken = [item.dtype for item in self.inputs] + [""] * len(inputs)
        return tuple(
            part.half() if kind == "float16" and part.dtype == torch.float32 else part
            for kind, part in zip(taken, inputs, strict=False)
        )

    @abstractmethod
    def reload(self) -> None:
        """Load the file afresh; raises `ExportError` if it cannot be."""

    @abstractmethod
    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """One bare run on arrays; raises `ExportError` if the file fails."""

    @abstractmethod
    def burst(self, feed: Feed, *, runs: int, warmup: int) -> list[float]:
        """Milliseconds of each of `runs` runs in a row, after `warmup` untimed ones."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds; it cannot be called afterwards."""

    def _array(self, declared: TensorInfo, value: Tensor) -> NDArray[Any]:
        place = f"input `{declared.name}` of {self.path}"
        if not isinstance(value, Tensor):
            raise UsageError(f"{place} wants a tensor, got {type(value).__name__}", hint="give a torch.Tensor")
        wanted = getattr(torch, declared.dtype, None)
        if value.dtype != wanted:
            kind = declared.dtype if wanted is None else str(wanted)
            raise UsageError(f"{place} wants {kind}, got {value.dtype}", hint="convert it before the call")
        if value.device.type != "cpu":
            raise UsageError(f"{place} wants a CPU tensor, got one on {value.device}", hint="call .cpu() first")
        _check_shape(place, declared.shape, tuple(value.shape))
        array: NDArray[Any] = value.detach().contiguous().numpy()
        return array

    def _tensor(self, array: object) -> Tensor:
        if not isinstance(array, np.ndarray) or array.dtype == object:
            raise ExportError(
                f"{self.path} gives an output that is not a tensor but {type(array).__name__}",
                hint="export outputs as tensors",
            )
        return torch.from_numpy(array if array.flags.writeable else array.copy())


class OnnxFile(ModelFile):
    """A file of ONNX Runtime (`.onnx`, `.ort`) in a session of this process on the CPU."""

    def __init__(self, path: Path, threads: int = 1, *, fold: bool = True) -> None:
        """Load `path` to run on `threads` threads that sleep rather than spin while they wait.

        `fold`: see `open_session`; without it less memory is taken, and more time.

        Raises:
            ExportError: the file is missing, is not a model, or cannot run on the CPU.
        """
        self._threads, self._fold = threads, fold
        self._session = _open(Path(path), threads, fold)
        super().__init__(
            Path(path),
            tuple(_info(item) for item in self._session.get_inputs()),
            tuple(_info(item) for item in self._session.get_outputs()),
            dict(self._session.get_modelmeta().custom_metadata_map),
        )
        self.runtime = describe()

    def reload(self) -> None:
        """A new session, in place of the old one."""
        self._session = None  # freed first
        self._session = _open(self.path, self._threads, self._fold)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """One bare run on arrays, what the clock measures; raises `ExportError` if the file fails."""
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, feed)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
            raise ExportError(
                f"{self.path} fails at {shapes}: {first_line(error)}",
                hint="an axis may be fixed in the file: export it as dynamic, or narrow min_length and max_length",
            ) from error
        return outputs

    def burst(self, feed: Feed, *, runs: int, warmup: int) -> list[float]:
        """Milliseconds of each of `runs` runs in a row, after `warmup` untimed ones."""
        for _ in range(warmup):
            self.run(feed)
        timed = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            self.run(feed)
            timed.append((time.perf_counter_ns() - start) / 1e6)
        return timed

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _info(declared: Any) -> TensorInfo:
    """A declared input or output: dtype by torch's name, an axis without a name called by its number."""
    return TensorInfo(
        name=declared.name,
        dtype=str(_DTYPES.get(declared.type, declared.type)).removeprefix("torch."),
        shape=tuple(str(axis) if size is None else size for axis, size in enumerate(declared.shape)),
    )


def _open(path: Path, threads: int, fold: bool) -> Any:
    check_threads(threads)
    loading.ensure(path, fold=fold)
    try:
        session = open_session(path, threads=threads, calibrated_in_float=saturate(), fold=fold)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(
            f"ONNX Runtime cannot load {path}: {first_line(error)}",
            hint="the file is damaged, is not ONNX, or uses operators that this version lacks",
        ) from error
    if session.get_providers() != [PROVIDER]:
        raise ExportError(
            f"{path} runs on {session.get_providers()} instead of {PROVIDER}",
            hint="install the plain onnxruntime package",
        )
    return session


def _check_shape(place: str, declared: Sequence[object], actual: tuple[int, ...]) -> None:
    if len(declared) != len(actual):
        raise UsageError(
            f"{place} has {len(declared)} axes {_axes(declared)}, got {len(actual)} axes {_axes(actual)}",
            hint="add or remove an axis before the call",
        )
    for axis, (wanted, size) in enumerate(zip(declared, actual, strict=True)):
        if isinstance(wanted, int) and wanted != size:
            raise UsageError(
                f"{place} is fixed to {wanted} on axis {axis}, got {size}",
                hint="give that size, or name the axis as dynamic and export again",
            )


def _axes(shape: Sequence[object]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
