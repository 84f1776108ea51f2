"""What `compressor verify --arch cortex-m4` does: generated C on an emulated microcontroller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from compressor.cli.output import columns, emit_json, emit_rich, say
from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from compressor.report import Emulated
    from compressor.runtimes.microcontroller.boards import BoardName


def verify_on_board(paths: Sequence[Path], arch: BoardName, atol: float | None, *, as_json: bool) -> None:
    """Repeat the proof of each file on a board, and print what it takes there; exits with 1 if one disagrees."""
    for path in paths:
        if not path.is_file() or path.suffix != ".c":
            raise UsageError(f"`{path}` is not generated C", hint="give .c files that `format: c` has written")
    if not paths:
        raise UsageError("no file to verify", hint="give .c files that `format: c` has written")
    from compressor.cli.progress import Terminal
    from compressor.runtimes.microcontroller.boards import BOARDS, tools
    from compressor.runtimes.microcontroller.proof import read, verify

    found, board = tools(), BOARDS[arch]
    results: list[Emulated] = []
    with Terminal() as progress, progress.bar(f"running on emulated {arch}", len(paths)) as bar:
        for path in paths:
            emulated = verify(*read(path), board, found)
            results.append(emulated if atol is None else emulated.model_copy(update={"atol": atol}))
            bar.advance()
    if as_json:
        told = [{"agrees": one.agrees, "emulated": True, **one.model_dump(mode="json")} for one in results]
        emit_json([{"file": str(path), **facts} for path, facts in zip(paths, told, strict=True)])
    else:
        emit_rich(_table(paths, results, arch))
    where = f"{results[0].board}, {results[0].compiler}"
    say(f"emulation: {where}. The numbers and sizes are right; none says how fast it is.")
    if not all(one.agrees for one in results):
        raise typer.Exit(1)


def _table(paths: Sequence[Path], results: Sequence[Emulated], arch: str) -> RenderableType:
    header = ("file", "flash", "RAM", "stack", "instructions", "max abs", "tolerance", f"emulated {arch}")
    rows = [
        (
            str(path),
            f"{one.flash_bytes:,} B",
            f"{one.ram_bytes:,} B",
            f"{one.stack_bytes:,} B",
            f"{one.instructions:,}",
            f"{one.max_absolute:.1e}",
            f"{one.atol:.1e}",
            "agrees" if one.agrees else "DISAGREES",
        )
        for path, one in zip(paths, results, strict=True)
    ]
    return columns(header, rows, right=header[1:7])
