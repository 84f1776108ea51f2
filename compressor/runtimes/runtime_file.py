"""Exported files in the runtimes of phones, each in a process of its own, behind the same call as a PyTorch model."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from compressor.errors import ExportError
from compressor.files import read_text
from compressor.report import FileDescription
from compressor.runtimes import environments, generated_code, loading
from compressor.runtimes.child import Server
from compressor.runtimes.onnx_runtime import Feed, ModelFile, OnnxFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

ONNX_RUNTIME_SUFFIXES = (".onnx", ".ort")
SOURCE_SUFFIX = ".c"
NCNN_SUFFIX = ".param"
"""Its weights are in `.bin`."""
WORKERS = Path(__file__).with_name("workers")
RUN_SECONDS = 120.0
LOAD_SECONDS = 300.0
"""Time limits of one request; a burst has that of a run for each of its runs."""


def description_path(path: Path) -> Path:
    """Where a file of a format that does not describe itself has its description: `model.mnn.json`."""
    return path.with_name(f"{path.name}.json")


def read_description(path: Path) -> FileDescription:
    """The description beside a file; raises `ExportError` if it is missing or cannot be read."""
    beside = description_path(path)
    if not beside.exists():
        raise ExportError(
            f"{path} has no description {beside.name} beside it",
            hint="keep it with the file: it names the inputs and outputs, which the file itself does not",
        )
    try:
        return FileDescription.model_validate_json(read_text(beside, ExportError, hint="export the file again"))
    except ValidationError as error:
        raise ExportError(f"{beside} is not a description of an exported file", hint="export the file again") from error


def shipped(path: Path) -> list[Path]:
    """The files that a phone needs to run `path`: itself and its weights, where those lie beside it.

    Raises:
        ExportError: It is a damaged ONNX file.
    """
    if path.suffix in ONNX_RUNTIME_SUFFIXES:
        return loading.parts(path)
    weights = path.with_suffix(".bin")  # ncnn's benchmark, on a phone, does without
    return [path, weights] if path.suffix == NCNN_SUFFIX and weights.is_file() else [path]


def open_file(path: Path, threads: int = 1, *, runtime: str | None = None) -> ModelFile:
    """Load an exported file into the runtime of its format, or an ONNX file into another one.

    Raises:
        ExportError: The runtime is missing, or cannot load the file.
    """
    if path.suffix not in ONNX_RUNTIME_SUFFIXES:
        return RuntimeFile(path, threads)
    file = OnnxFile(path, threads)
    if runtime is None:
        return file
    described = FileDescription(
        format="onnx", runtime=runtime, inputs=file.inputs, outputs=file.outputs, metadata=file.metadata
    )
    return RuntimeFile(path, threads, description=described)


class Worker:
    """A process that loads files into one runtime and runs them."""

    def __init__(self, runtime: str, what: str, *, module: Path | None = None) -> None:
        """Start it.

        Args:
            runtime: By its name in `compressor.runtimes.environments`.
            what: As the subject of errors.
            module: What is served; the module of the runtime among `workers` by default.

        Raises:
            ExportError: The runtime is not installed.
        """
        found = environments.need(runtime)
        served = module or WORKERS / f"{runtime}.py"
        command = [str(found.python), "-P", str(WORKERS / "serve.py"), str(served)]
        # What a browser leaves in its temporary folder goes with the worker, which is killed and cannot tidy up.
        scratch = tempfile.mkdtemp() if found.packages else None
        self._tidy = weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True) if scratch else None
        variables = {"PYTHONDONTWRITEBYTECODE": "1", **found.variables} | ({"TMPDIR": scratch} if scratch else {})
        self._server = Server(command, what=what, environment=variables)

    def ask(
        self, do: str, arrays: Sequence[NDArray[Any]] = (), *, seconds: float, hint: str = "", **more: Any
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """The answer to a request (see `workers/serve.py`); raises `ExportError` if it is an error or missing."""
        head, found = _unpacked(self._server.ask(_packed({"do": do, **more}, arrays), seconds=seconds, hint=hint))
        if "error" in head:
            said = f"{_first_lines(head['error'])}{self._server.last_lines()}"
            raise ExportError(f"{self._server.what} failed: {said}", hint=hint or None)
        return head, found

    @property
    def alive(self) -> bool:
        """Whether it may still be asked: a request that killed or hung it ended it."""
        return self._server.close.alive

    def close(self) -> None:
        """End it."""
        self._server.close()
        if self._tidy is not None:
            self._tidy()


class RuntimeFile(ModelFile):
    """A file in its own runtime: CPU tensors in, CPU tensors out, computed in a process of its own."""

    def __init__(self, path: Path, threads: int = 1, *, description: FileDescription | None = None) -> None:
        """Load `path`.

        Args:
            path: The file.
            threads: Of the runtime inside one operator, if it has any.
            description: Its runtime, inputs and outputs; read from beside it by default.

        Raises:
            ExportError: The runtime is missing, or cannot load the file.
        """
        described = read_description(path) if description is None else description
        super().__init__(path, described.inputs, described.outputs, dict(described.metadata))
        self.description = described
        name = described.runtime
        if not path.is_file():
            raise ExportError(f"{path} is not a file", hint="export the model first, or correct the path")
        if path.suffix == SOURCE_SUFFIX:
            generated_code.ensure(path)
        title = environments.known(name).title
        self._load: dict[str, Any] = {
            "path": str(path.resolve()),
            "threads": threads,
            "description": described.model_dump(mode="json"),
        }
        self._worker = Worker(name, f"{path.name} in {title}")
        self.runtime = ""
        self.reload()

    def reload(self) -> None:
        """Load the file afresh in the same process."""
        hint = "the file is damaged, or uses what this version of the runtime lacks"
        head, _ = self._worker.ask("load", seconds=LOAD_SECONDS, hint=hint, **self._load)
        self.runtime = head["version"]

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """One run on arrays."""
        _, outputs = self._worker.ask("run", list(feed.values()), seconds=RUN_SECONDS, hint=_hint(feed))
        return outputs

    def burst(self, feed: Feed, *, runs: int, warmup: int) -> list[float]:
        """Milliseconds of each of `runs` runs in a row, after `warmup` untimed ones; timed in its process."""
        seconds = RUN_SECONDS * (runs + warmup)
        head, _ = self._worker.ask("time", list(feed.values()), seconds=seconds, warmup=warmup, runs=runs)
        return [nanoseconds / 1e6 for nanoseconds in head["ns"]]

    def close(self) -> None:
        """End the process."""
        self._worker.close()


def peak(
    path: Path, inputs: Sequence[NDArray[Any]], runtime: str, description: Mapping[str, Any], *, runs: int
) -> int | None:
    """By how many bytes a fresh process of a runtime grows when it loads and runs a file; None if that is unknown."""
    worker = Worker(runtime, f"{path} in a process of its own")
    try:
        load: dict[str, Any] = {
            "path": str(path.resolve()),
            "threads": 1,
            "description": dict(description),
            "runs": runs,
        }
        hint = "the file loads here but not there: is there enough memory?"
        head, _ = worker.ask("peak", inputs, seconds=LOAD_SECONDS + runs * RUN_SECONDS, hint=hint, **load)
    finally:
        worker.close()
    grown: int | None = head["bytes"]
    return grown


def _hint(feed: Mapping[str, NDArray[Any]]) -> str:
    shapes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
    return f"it was run at {shapes}: an axis may be fixed in the file"


def _first_lines(text: str, lines: int = 6) -> str:
    return "\n".join(text.strip().splitlines()[:lines])


def _packed(head: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    arrays = [np.ascontiguousarray(array).reshape(array.shape) for array in arrays]
    described = [[str(array.dtype), list(array.shape)] for array in arrays]
    text = json.dumps({**head, "arrays": described}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(array.tobytes() for array in arrays)])


def _unpacked(message: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    (length,) = struct.unpack_from("<I", message)
    head = json.loads(message[4 : 4 + length])
    arrays: list[NDArray[Any]] = []
    place = 4 + length
    for dtype, shape in head.pop("arrays"):
        count = int(np.prod(shape, dtype=np.int64))
        array: NDArray[Any] = np.frombuffer(message, dtype, count, place).reshape(shape)
        arrays.append(array.copy())
        place += array.nbytes
    return head, arrays
