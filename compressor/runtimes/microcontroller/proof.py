"""Calls of a model's C with what it gave here: the check that a board has to pass."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError
from compressor.report import Emulated
from compressor.runtimes.microcontroller.program import Call, Code
from compressor.runtimes.microcontroller.running import run
from compressor.runtimes.runtime_file import read_description

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from compressor.runtimes.microcontroller.boards import Board, Tools
    from compressor.runtimes.microcontroller.running import Outcome

KEY = "proof"
"""Of the details of a description."""
OPTIMISATION = "-O2"


@dataclass(frozen=True)
class Proof:
    """Calls, the outputs that each must give, and how far these may be off."""

    calls: Sequence[Call]
    outputs: Sequence[Sequence[NDArray[Any]]]
    atol: float

    def text(self) -> str:
        """As JSON, in which every float comes back exactly."""
        rows = [
            {"reset": call.reset, "inputs": [_listed(part) for part in call.inputs], "outputs": [*map(_listed, given)]}
            for call, given in zip(self.calls, self.outputs, strict=True)
        ]
        return json.dumps({"atol": self.atol, "calls": rows}, separators=(",", ":"))


def read(path: Path) -> tuple[Code, Proof]:
    """A generated file and its proof, from the description beside it.

    Raises:
        ExportError: There is none, or it is of another file.
    """
    details = read_description(path).details
    try:
        code, known = Code.of(path, json.loads(details["c"])), json.loads(details[KEY])
        calls = [Call([*map(_given, code.inputs, row["inputs"])], bool(row["reset"])) for row in known["calls"]]
        outputs = [[*map(_given, code.outputs, row["outputs"])] for row in known["calls"]]
        return code, Proof(calls, outputs, float(known["atol"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"the description beside {path} has no proof that a board could repeat", hint="export the file again"
        ) from error


def verify(code: Code, proof: Proof, board: Board, tools: Tools) -> Emulated:
    """Whether the model gives on an emulated board what it gave here, and what it takes there.

    Raises:
        ExportError: It does not compile for the board, faults or does not come to an end.
    """
    outcome = run(code, proof.calls, board, tools, flags=[OPTIMISATION])
    compiler, emulator = tools.describe()
    return Emulated(
        cpu=board.cpu,
        board=f"{board.machine}, {emulator}",
        compiler=f"{compiler} {OPTIMISATION}",
        flash_bytes=outcome.image.flash_bytes,
        ram_bytes=outcome.image.ram_bytes + outcome.stack_bytes,
        stack_bytes=outcome.stack_bytes,
        instructions=max(outcome.instructions),
        calls=len(proof.calls),
        max_absolute=_furthest(outcome, proof),
        atol=proof.atol,
    )


def _furthest(outcome: Outcome, proof: Proof) -> float:
    """The largest difference; infinite if a number is NaN on one side alone."""
    largest = 0.0
    for got, wanted in zip(outcome.outputs, proof.outputs, strict=True):
        for one, other in zip(got, wanted, strict=True):
            same = (one == other) | (np.isnan(one) & np.isnan(other))
            differs = np.where(same, 0.0, np.abs(one.astype(np.float64) - other.astype(np.float64)))
            largest = max(largest, float(np.nan_to_num(differs, nan=np.inf).max(initial=0.0)))
    return largest


def _listed(array: NDArray[Any]) -> list[float] | list[int]:
    flat = array.ravel().tolist()
    return [float(f"{value:.9g}") for value in flat] if array.dtype.kind == "f" else flat


def _given(item: Any, values: Sequence[float]) -> NDArray[Any]:
    return np.array(values, item.dtype).reshape(item.shape)
