"""Writes the example of a step file's loop: a Python file that needs onnxruntime and numpy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.report import Artifact, StateInfo, StreamInfo, TensorInfo

_TEMPLATE = '''"""Runs {file} over a stream, {positions} at a time. Needs onnxruntime and numpy.

    python {script} [STEPS]

Inputs of a step:
{inputs}
Outputs of a step:
{outputs}
States, {bytes} for one stream{growth}: each output `X.next` is the input `X` of the next step.
{states}
The same is in the file's metadata, under `{key}`.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

MODEL = Path(__file__).with_name({file!r})
STATES = {{
{initial}
}}
OUTPUTS = {names!r}


class Stream:
    """One stream: `step` takes {positions} and gives the outputs; `reset` starts anew."""

    def __init__(self, model: Path = MODEL) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.reset()

    def reset(self) -> None:
        self._states = dict(STATES)

    def step(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        names = [*OUTPUTS, *(name + {next!r} for name in STATES)]
        results = dict(zip(names, self._session.run(names, {{**inputs, **self._states}})))
        self._states = {{name: results[name + {next!r}] for name in STATES}}
        return {{name: results[name] for name in OUTPUTS}}


def main() -> None:
    """Run some steps on made-up inputs."""
    random = np.random.default_rng(0)
    stream = Stream()
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        outputs = stream.step(
{made_up}
        )
        print(number, {{name: value.shape for name, value in outputs.items()}})


if __name__ == "__main__":
    main()
'''


def write(artifact: Artifact, info: StreamInfo) -> str:
    """The text of the example for a step file."""
    from compressor.runtimes.steps import METADATA_KEY

    inputs = artifact.inputs[: len(artifact.inputs) - len(info.states)]
    results = artifact.outputs[: len(info.outputs)]
    growing = info.state_bytes(1) - info.state_bytes(0)
    start = info.state_bytes(0)
    return _TEMPLATE.format(
        file=artifact.path,
        script=artifact.path.removesuffix(".onnx") + ".py",
        positions="one position" if info.chunk == 1 else f"{info.chunk} positions",
        inputs=_listed(inputs),
        outputs=_listed(results),
        states=_listed(artifact.inputs[len(inputs) :]),
        bytes=f"{start:,} bytes",
        growth=f" and {growing:,} more with every position" if growing else "",
        key=METADATA_KEY,
        next=".next",
        names=[item.name for item in results],
        initial="\n".join(f"    {state.name!r}: {_initial(state)}," for state in info.states),
        made_up="\n".join(f"            **{{{item.name!r}: {_made_up(item)}}}," for item in inputs),
    )


def _listed(tensors: Sequence[TensorInfo]) -> str:
    # in the docstring of the example, which no name may end
    names = [item.name.replace("\\", "/").replace('"', "'") for item in tensors]
    return "\n".join(
        f"    {name}  {item.dtype}  {_shape(item.shape)}" for name, item in zip(names, tensors, strict=True)
    )


def _shape(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _sizes(shape: tuple[int | str, ...], growing_axis: int | None = None) -> tuple[int, ...]:
    """One stream, nothing before it."""
    return tuple(0 if axis == growing_axis else size if isinstance(size, int) else 1 for axis, size in enumerate(shape))


def _initial(state: StateInfo) -> str:
    shape = _sizes(state.shape, state.growing_axis)
    if isinstance(state.initial, tuple):
        return f"np.array({list(state.initial)!r}, np.{state.dtype}).reshape({shape!r})"
    if state.initial == 0.0:
        return f"np.zeros({shape!r}, np.{state.dtype})"
    return f"np.full({shape!r}, {state.initial!r}, np.{state.dtype})"


def _made_up(item: TensorInfo) -> str:
    shape = _sizes(item.shape)
    if item.dtype.startswith("float"):
        return f"random.standard_normal({shape!r}).astype(np.{item.dtype})"
    return f"np.zeros({shape!r}, np.{'bool_' if item.dtype == 'bool' else item.dtype})"
