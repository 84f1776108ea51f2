"""Where text goes: data to standard output, everything else to standard error; colour only on a terminal.

All text passes `printable` here, whatever it comes from: a control character of a recipe, a file or an exception is
shown and never obeyed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from compressor.errors import CompressorError, OutputError
from compressor.render.text import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType

PIPE_CLOSED: Final = 141
"""What a shell reports for a program that a closed pipe ended (128 + SIGPIPE)."""
_WIDE: Final = 1000
_READABLE: Final = 100
_RED, _BLUE, _GREEN, _BOLD, _OFF = "\x1b[1;31m", "\x1b[1;34m", "\x1b[1;32m", "\x1b[1m", "\x1b[0m"


_AS_IT_IS: Final = re.compile(r" |\d+ \| ")
"""Begins a line of code, or a line of a recipe with its number."""
_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")


def emit(text: str) -> None:
    """Write data to standard output, with a line end.

    Raises:
        OutputError: It cannot be written, on a full disk for instance.
        SystemExit: Whoever read it has gone.
    """
    _write(printable(text))


def tell(text: str) -> None:
    """Write sentences to standard output; raises as `emit`."""
    _write(fitted(printable(text), sys.stdout))


def fitted(text: str, stream: TextIO) -> str:
    """`text` with lines that end between words where a terminal would break them in the middle of one.

    What is indented is a command or code, and stays a line that can be copied; so does everything in a file or a pipe.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(_fitted_line(line, width) for line in text.split("\n"))


def _fitted_line(line: str, width: int) -> str:
    if len(line) <= width or _AS_IT_IS.match(line):
        return line
    kept = line.replace(" %", "\u00a0%")  # a number and its sign stay on one line
    filled = textwrap.fill(kept, width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    return filled.replace("\u00a0%", " %")


def _write(text: str) -> None:
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
    emit_json_text(json.dumps(value, indent=2, ensure_ascii=False))


def emit_json_text(text: str) -> None:
    """Write JSON to standard output; it stays the same value."""
    _write(printable_json(text))


def emit_rich(*parts: RenderableType, prose: bool = False) -> None:
    """Write tables and the like to standard output; `prose` is wrapped if it is not a terminal, tables are not."""
    console = data_console(prose=prose)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    lines = [line.rstrip() for line in capture.get().split("\n")]
    _write("\n".join(_coloured(line) for line in lines).rstrip("\n"))


def _coloured(line: str) -> str:
    """`printable`, but for the colours that rich sets on a terminal."""
    return "".join(part if index % 2 else printable(part) for index, part in enumerate(_COLOUR.split(line)))


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
        table.add_column(Text(printable(name)), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def say(text: str) -> None:
    """Write a line to standard error."""
    _to_standard_error(fitted(printable(text), sys.stderr))


def complain(error: CompressorError) -> None:
    """Write an error to standard error."""
    paragraphs = [fitted(line, sys.stderr) for line in printable(error.render()).split("\n")]
    _to_standard_error("\n".join(map(paint, paragraphs) if coloured(sys.stderr) else paragraphs))


def _to_standard_error(text: str) -> None:
    print(text, file=sys.stderr)


def coloured(stream: TextIO) -> bool:
    """True for a terminal that wants colour (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(line: str) -> str:
    """A line of an error with terminal colours: the word at its start, the arrow or the caret."""
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
