"""The folder `use/` of a run: programs that run its ONNX files, and an example by which each tests itself."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from compressor.render import programs
from compressor.render.programs import File
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps, initial_state
from compressor.task.random_state import seeded_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from compressor.pipeline.exporting import Exported
    from compressor.pipeline.setting import Setting
    from compressor.report import Artifact
    from compressor.task.contract import Task

FOLDER: Final = "use"
_STEPS: Final = 3
"""Calls of a step file in its example."""
_MOST_NUMBERS: Final = 100_000
"""In an example; about 1 MB."""


def write(run: Setting, exported: Sequence[Exported]) -> list[str]:
    """Write the programs for the compressed ONNX files, step files among them; gives the names of what was written.

    A file for which there can be none is told in a note.
    """
    if run.quick:
        return []
    names: list[str] = []
    for one in exported:
        for artifact in (one.artifact, one.artifact.step) if one.programs else ():
            if artifact is not None:
                names += _of_file(run, artifact, one.task)
    return names


def _of_file(run: Setting, artifact: Artifact, task: Task) -> Iterator[str]:
    file = File(artifact.path, artifact.inputs, artifact.outputs, artifact.stream)
    unknown = programs.unknown_type(file)
    example = None
    if unknown is None:
        with seeded_everywhere(run.recipe.seed):
            example = _example(run.folder.staging / artifact.path, file, task)
    if example is None:
        reason = f"no programs know the type {unknown}" if unknown else "its inputs are too large for an example"
        run.notes.append(f"`{FOLDER}/` has no programs for {artifact.path}: {reason}.")
        return
    texts = {**programs.programs(file), programs.example_name(file): example}
    for name, text in texts.items():
        run.folder.write(f"{FOLDER}/{name}", text)
        yield f"{FOLDER}/{name}"


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
