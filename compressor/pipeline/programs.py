"""The folder `use/` beside ONNX files: programs that run them, and an example by which each tests itself."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from compressor.files import write_whole, writing
from compressor.render import programs
from compressor.render.programs import File
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps, initial_state
from compressor.task.random_state import seeded_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from compressor.report import Artifact
    from compressor.task.contract import Task

FOLDER: Final = "use"
_STEPS: Final = 3
"""Calls of a step file in its example."""
_MOST_NUMBERS: Final = 100_000
"""In an example; about 1 MB."""


def write(folder: Path, files: Iterable[tuple[Artifact, Task]], *, seed: int) -> tuple[list[str], list[str]]:
    """Write the programs of ONNX files, and of their step files, into `use/` of the folder that they are in.

    Args:
        folder: Where the files are.
        files: The facts about each, and the task of its sizes.
        seed: Of the examples.

    Returns:
        The names of what was written, and for each file without programs why it has none.

    Raises:
        OutputError: They cannot be written.
    """
    names: list[str] = []
    notes: list[str] = []
    for whole, task in files:
        for artifact in (whole, whole.step) if whole.step is not None else (whole,):
            texts, reason = _of_file(folder, artifact, task, seed)
            if reason:
                notes.append(f"`{FOLDER}/` has no programs for {artifact.path}: {reason}.")
            for name, text in texts.items():
                with writing(folder / FOLDER):
                    (folder / FOLDER).mkdir(exist_ok=True)
                write_whole(folder / FOLDER / name, text.encode())
                names.append(f"{FOLDER}/{name}")
    return names, notes


def _of_file(folder: Path, artifact: Artifact, task: Task, seed: int) -> tuple[dict[str, str], str]:
    """The texts by their names, or why there are none."""
    file = File(artifact.path, artifact.inputs, artifact.outputs, artifact.stream)
    if unknown := programs.unknown_type(file):
        return {}, f"no programs know the type {unknown}"
    with seeded_everywhere(seed):
        example = _example(folder / artifact.path, file, task)
    if example is None:
        return {}, "its inputs are too large for an example"
    return {**programs.programs(file), programs.example_name(file): example}, ""


def _example(path: Path, file: File, task: Task) -> str | None:
    """Inputs of a call, or of several steps, and what they give, as JSON; None if that is too much at any length."""
    for length in dict.fromkeys((task.length, task.min_length)):
        calls = list(_calls(path, file, task.example(1, length)))
        tensors = [tensor for call in calls for part in call.values() for tensor in part.values()]
        finite = all(math.isfinite(number) for tensor in tensors for number in tensor["data"])
        if finite and sum(len(tensor["data"]) for tensor in tensors) <= _MOST_NUMBERS:
            return json.dumps({"file": file.name, "calls": calls}) + "\n"
    return None


def _calls(path: Path, file: File, inputs: Sequence[Tensor]) -> Iterator[dict[str, dict[str, Any]]]:
    """The inputs of each call by name, without states, and the outputs."""
    onnx = OnnxFile(path)
    given = {item.name for item in file.fed}, {item.name for item in file.given}
    for feed in _feeds(onnx, file, inputs):
        outputs = dict(zip(onnx.output_names, onnx.run(feed), strict=True))
        feed |= {state.name: outputs[state.next_name] for state in file.states}
        yield {
            kind: {name: _described(array) for name, array in arrays.items() if name in names}
            for kind, arrays, names in zip(("inputs", "outputs"), (feed, outputs), given, strict=True)
        }
    onnx.close()


def _feeds(onnx: OnnxFile, file: File, inputs: Sequence[Tensor]) -> Iterator[dict[str, NDArray[Any]]]:
    """What each call is given; the caller puts the new states into it."""
    if file.stream is None:
        yield {name: part.numpy() for name, part in zip(onnx.input_names, onnx.cast(inputs), strict=True)}
        return
    steps = Steps(onnx.path, file=onnx)
    length = next((part.shape[item.time_axis] for item, part in _timed(file, inputs)), 1)
    feed = {state.name: initial_state(state, 1).numpy() for state in file.states}
    for start in range(0, min(length, _STEPS * file.stream.chunk), file.stream.chunk):
        names = [item.name for item in file.stream.inputs if not item.lengths]
        parts = onnx.cast(steps.step_inputs(inputs, start, length))
        feed |= {name: part.numpy() for name, part in zip(names, parts, strict=True)}
        yield feed


def _timed(file: File, inputs: Sequence[Tensor]) -> Iterator[tuple[Any, Tensor]]:
    assert file.stream is not None
    pairs = zip(file.stream.inputs, inputs, strict=True)
    return ((item, part) for item, part in pairs if item.time_axis is not None)


def _described(array: NDArray[Any]) -> dict[str, Any]:
    """As JSON: nine digits give every float32 back."""
    numbers = array.reshape(-1).tolist()
    data = [float(f"{number:.9g}") for number in numbers] if array.dtype.kind == "f" else numbers
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": data}
