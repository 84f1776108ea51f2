"""What is written of a model, and what a program has to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporters.c_code.graph import Kind
    from exporters.c_code.program import Constant


@dataclass(frozen=True)
class Field:
    """An argument of the step function, or a state in its struct."""

    name: str
    """In C."""
    title: str
    """In the model."""
    kind: Kind
    shape: tuple[int, ...]
    initial: float | tuple[float, ...] = 0.0

    @property
    def size(self) -> int:
        """Elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Sources:
    """What is written, and what a program has to know of it."""

    name: str
    """What every public name begins with."""
    call: str
    """The function that computes: `model_step` carries states on, `model_run` does not."""
    header_name: str
    header: str
    code: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    states: tuple[Field, ...]
    state_bytes: int
    """Of the struct: states and work area."""
    constants: tuple[Constant, ...]
    """Weights and tables, in read-only memory."""
    operators: Mapping[str, int]
    """ONNX operator -> how many nodes of it were written."""

    @property
    def constant_bytes(self) -> int:
        """Of weights and tables."""
        return sum(item.array.nbytes for item in self.constants)

    def constant_data(self) -> bytes:
        """All of them, one behind the other."""
        return b"".join(item.array.tobytes() for item in self.constants)

    def interface(self) -> dict[str, Any]:
        """What a loader needs to call it, for JSON."""
        kinds = {"inputs": self.inputs, "outputs": self.outputs, "states": self.states}
        fields = {kind: [[item.title, item.kind, list(item.shape)] for item in items] for kind, items in kinds.items()}
        return {"init": f"{self.name}_init", "call": self.call, "bytes": self.state_bytes, **fields}

    def trial(self) -> str:
        """A program that runs three steps on made-up inputs."""
        arrays = "".join(
            f"    static {item.kind} {item.name}[{max(item.size, 1)}];\n" for item in (*self.inputs, *self.outputs)
        )
        fills = "".join(
            f"        for (int i = 0; i < {item.size}; ++i) {{\n"
            f"            {item.name}[i] = {'0.25f * (float)((i * 7 + t) % 9 - 4)' if item.kind == 'float' else '1'};\n"
            "        }\n"
            for item in self.inputs
        )
        arguments = ", ".join(["&state", *(item.name for item in (*self.inputs, *self.outputs))])
        return (
            f'#include "{self.header_name}"\n\nint main(void)\n{{\n    static {self.name}_state state;\n{arrays}'
            f"    {self.name}_init(&state);\n    for (int t = 0; t < 3; ++t) {{\n{fills}"
            f"        {self.call}({arguments});\n    }}\n    return 0;\n}}\n"
        )
