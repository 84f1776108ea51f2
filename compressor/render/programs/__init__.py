"""Small programs that run an exported ONNX file: its inputs by name, its states carried; ready to paste."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.render.programs.literals import comment, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jinja2

    from compressor.report import StateInfo, StreamInfo, TensorInfo

LANGUAGES: Final = {"py": "Python", "mjs": "JavaScript", "cpp": "C++", "kt": "Kotlin", "swift": "Swift"}
"""Ending of a program -> its language."""
UNTRIED: Final = ("swift",)
"""Those that no compiler of this tool's tests has seen; each says so at its head."""
TYPES: Final = {
    "float32": {"js": "Float32Array", "cpp": "float", "kt": "FloatBuffer", "swift": "float", "fill": "Float"},
    "int64": {"js": "BigInt64Array", "cpp": "int64_t", "kt": "LongBuffer", "swift": "int64", "fill": "Int64"},
    "int32": {"js": "Int32Array", "cpp": "int32_t", "kt": "IntBuffer", "swift": "int32", "fill": "Int32"},
}
"""Of the inputs and states of a file, in each language; a file with others gets no programs."""


@dataclass(frozen=True)
class File:
    """What the programs need to know of a file."""

    name: str
    """Such as `model.onnx`."""
    inputs: Sequence[TensorInfo]
    """States included."""
    outputs: Sequence[TensorInfo]
    stream: StreamInfo | None = None

    @property
    def stem(self) -> str:
        """Of the programs' names."""
        return self.name.removesuffix(".onnx")

    @property
    def states(self) -> Sequence[StateInfo]:
        """What a program carries from call to call."""
        return self.stream.states if self.stream else ()

    @property
    def fed(self) -> list[TensorInfo]:
        """The inputs that a caller gives."""
        carried = {state.name for state in self.states}
        return [item for item in self.inputs if item.name not in carried]

    @property
    def given(self) -> list[TensorInfo]:
        """The outputs that a caller gets."""
        carried = {state.next_name for state in self.states}
        return [item for item in self.outputs if item.name not in carried]


def example_name(file: File) -> str:
    """The file beside the programs with inputs and the outputs that they give."""
    return f"{file.stem}.example.json"


def unknown_type(file: File) -> str | None:
    """The first type among inputs, outputs and states for which there are no programs."""
    types = [item.dtype for item in (*file.inputs, *file.outputs)]
    return next((name for name in types if name not in TYPES), None)


def programs(file: File) -> dict[str, str]:
    """Name of a program -> its text, in every language."""
    view = {
        "file": file,
        "example": example_name(file),
        "types": TYPES,
        "sizes": {state.name: state_shape(state) for state in file.states},
        "class_name": "Stream" if file.stream else "Model",
    }
    return {
        f"{file.stem}.{ending}": _templates().get_template(f"{ending}.j2").render(view, language=ending)
        for ending in LANGUAGES
    }


def state_shape(state: StateInfo) -> list[int]:
    """Sizes of one stream's state before the first position, its batch left out."""
    return [0 if axis == state.growing_axis else int(size) for axis, size in enumerate(state.shape) if axis]


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # programs, no HTML; what comes from the file goes through `text`
    )
    environment.filters["text"] = jinja2.pass_context(lambda context, text: literal(text, context["language"]))
    environment.filters["shape"] = _shape
    environment.filters["comment"] = comment
    environment.filters["numbers"] = _numbers
    return environment


def _numbers(state: StateInfo) -> str:
    """What a state begins with: `0.5, -1.0`, or `3` of whole numbers, which C++ does not take as `3.0`."""
    values = (state.initial,) if isinstance(state.initial, float | int) else state.initial
    return ", ".join(str(value if state.dtype == "float32" else int(value)) for value in values)


def _shape(item: TensorInfo) -> str:
    """For a comment: `float32 (batch, time, 7)`."""
    sizes = ", ".join(comment(str(size)) for size in item.shape)
    return f"{item.dtype} ({sizes}{',' if len(item.shape) == 1 else ''})"
