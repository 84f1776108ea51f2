"""Where in the user's file something happened."""

from __future__ import annotations

import linecache
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING

from compressor.errors import CompressorError, Place, TaskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType


def place_of(file: str, frame: FrameType | None) -> Place:
    """Where a generator of the user's file is; the file alone if it is none."""
    if frame is None or Path(frame.f_code.co_filename).resolve() != Path(file).resolve():
        return Place(file)
    return Place(file, frame.f_lineno, None, linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip())


def place_in(file: str, traceback: TracebackType | None) -> Place:
    """The innermost line of the user's file that the error passed through."""
    target = str(Path(file).resolve())
    frames = [f for f in extract_tb(traceback) if str(Path(f.filename).resolve()) == target]
    if not frames:
        return Place(file)
    frame = frames[-1]
    return Place(file, frame.lineno, None, frame.line)


def raised_in(error: BaseException) -> str:
    """The name of the function whose own line raised an error."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "" if last is None else last.tb_frame.f_code.co_name


@contextmanager
def blamed(what: str, file: str) -> Iterator[None]:
    """Whatever is raised within the block, other than our own errors, is a `TaskError` at its line of the file.

    Args:
        what: What raises, at the start of the message.
        file: The user's.
    """
    try:
        yield
    except CompressorError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"{what} raised {type(error).__name__}: {error}",
            hint="fix the task file",
            place=place_in(file, error.__traceback__),
        ) from error
