"""Runs a program on an emulated board, and reads what its test tells."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from compressor.errors import ExportError
from compressor.runtimes import child
from compressor.runtimes.microcontroller.program import Image, build

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from compressor.runtimes.microcontroller.boards import Board, Tools
    from compressor.runtimes.microcontroller.program import Call, Code

_SHIFT: Final = 6
"""Of QEMU's instruction counter: an instruction takes 2**6 = 64 ns of the board's time."""
_TICKS: Final = 1.6
"""Of the board's timer of 25 MHz, in the time of one instruction."""
_PAINTED: Final = 64 * 1024
"""Bytes of stack that the test paints."""
_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Outcome:
    """What a program did on a board."""

    image: Image
    outputs: list[list[NDArray[Any]]]
    """Of each call, each output."""
    stack_bytes: int
    """The deepest that a call went."""
    instructions: list[int]
    """Of each call."""


def run(code: Code, calls: Sequence[Call], board: Board, tools: Tools, *, flags: Sequence[str] = ("-Os",)) -> Outcome:
    """Compile a model for a board and make these calls there, emulated.

    The emulated board has no way to this machine's files or programs: it tells by its serial port.

    Raises:
        ExportError: It does not compile, faults, or does not come to an end.
    """
    with tempfile.TemporaryDirectory() as place:
        image = build(code, calls, board, tools, Path(place), flags=flags)
        what = f"{code.path.name} on an emulated {board.cpu}"
        command = [tools.emulator, "-M", board.machine, "-kernel", str(image.path), "-icount", f"shift={_SHIFT}"]
        quiet = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-nic", "none"]
        said = child.run([*command, *quiet], seconds=_SECONDS, what=what)
    return _outcome(said, code, image, what)


def _outcome(said: str, code: Code, image: Image, what: str) -> Outcome:
    words = [(line[0], int(line[1:], 16)) for line in said.split()]
    fault = next((word for letter, word in words if letter == "F"), None)
    if fault is not None:
        raise ExportError(f"{what} ended by a fault of the processor (status {fault:#010x})")
    if not words or words[-1][0] != "S":
        raise ExportError(f"{what} did not come to its end")
    ticks = [word for letter, word in words if letter == "T"]
    values = np.array([word for letter, word in words if letter == "Y"], np.uint32).reshape(len(ticks), -1)
    ends = np.cumsum([item.size for item in code.outputs])
    outputs = [
        [
            part.view(item.dtype).reshape(item.shape)
            for part, item in zip(np.split(row, ends[:-1]), code.outputs, strict=True)
        ]
        for row in values
    ]
    stack = words[-1][1]
    if stack >= _PAINTED:
        raise ExportError(f"{what} takes more than {_PAINTED} bytes of stack")
    return Outcome(image, outputs, stack, [round(tick / _TICKS) for tick in ticks])
