"""Where text goes: data to standard output, everything else to standard error; colour only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from compressor.errors import CompressorError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType

PIPE_CLOSED: Final = 141
"""What a shell reports for a program that a closed pipe ended (128 + SIGPIPE)."""
_WIDE: Final = 1000
_READABLE: Final = 100
_RED, _BLUE, _GREEN, _BOLD, _OFF = "\x1b[1;31m", "\x1b[1;34m", "\x1b[1;32m", "\x1b[1m", "\x1b[0m"


def emit(text: str) -> None:
    """Write data to standard output, with a line end.

    Raises:
        OutputError: It cannot be written, on a full disk for instance.
        SystemExit: Whoever read it has gone.
    """
    try:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        raise SystemExit(PIPE_CLOSED) from None
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def emit_json(value: Any) -> None:
    """Write a value to standard output as JSON."""
    emit(json.dumps(value, indent=2, ensure_ascii=False))


def emit_rich(*parts: RenderableType, prose: bool = False) -> None:
    """Write tables and the like to standard output; `prose` is wrapped if it is not a terminal, tables are not."""
    console = data_console(prose=prose)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    emit("\n".join(line.rstrip() for line in capture.get().splitlines()))


def data_console(*, prose: bool = False) -> Console:
    """A console on standard output; a table is never cut or wrapped if it is not a terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _READABLE if prose else _WIDE)


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> RenderableType:
    """A plain table; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr)


def complain(error: CompressorError) -> None:
    """Write an error to standard error."""
    say(paint(error.render()) if coloured(sys.stderr) else error.render())


def coloured(stream: TextIO) -> bool:
    """True for a terminal that wants colour (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str) -> str:
    """The text of an error with terminal colours: the words at the start of lines, the arrow and the caret."""
    return "\n".join(_paint_line(line) for line in text.split("\n"))


def _paint_line(line: str) -> str:
    if line.startswith("error: "):
        return f"{_RED}error{_OFF}{_BOLD}: {line.removeprefix('error: ')}{_OFF}"
    if line.startswith("hint: "):
        return f"{_GREEN}hint{_OFF}: {line.removeprefix('hint: ')}"
    if line.startswith(" --> "):
        return f"{_BLUE} -->{_OFF} {line.removeprefix(' --> ')}"
    bar, _, caret = line.rpartition("| ")
    return f"{_BLUE}{bar}|{_OFF} {_RED}^{_OFF}".replace("^", caret) if caret.strip() == "^" else line


def _discard(stream: TextIO) -> None:
    """Python flushes once more on exit; let that go nowhere instead of into a second error."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
