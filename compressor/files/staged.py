"""Folders that change from one whole set of files to another: staged aside, committed by one rename, then put in place.

New files are filled into `DIR/unfinished`. The commit is one file there, which says what is to be moved and what goes:
before it is written, the folder is the older one; once it is, the folder is the newer one, and whoever comes next (the
run itself, or any later command) moves what is left to move. A process may be killed at any point of this.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import OutputError
from compressor.files import json_object, read_text, write_whole, writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UNFINISHED = "unfinished"
LOG_FILE = "run.log"
"""Folder inside of `DIR` for what is not in place yet."""
REPORT_FILE = "report.json"
"""Moved last: without it a folder does not look finished."""
COMMIT_FILE = "commit.json"
PROGRAMS = "use"
"""The one folder inside of `DIR` that holds files of a run."""

_held: set[int] = set()


def commit(folder: Path, names: Iterable[str], *, remove: Iterable[str] = ()) -> None:
    """Put staged files in place, whatever happens meanwhile.

    Args:
        folder: The folder, locked.
        names: Of files in `folder/unfinished`; everything else there is thrown away.
        remove: Names of older files in `folder` that go.

    Raises:
        OutputError: A folder has the name of a file, or something cannot be written; before the commit nothing of the
            older files was touched, after it the next command goes on.
    """
    files = sorted(names)
    for name in files:
        if (folder / name).is_dir():
            raise OutputError(f"cannot write {folder / name}: it is a folder", hint="move it away, and run again")
    inside = folder / PROGRAMS
    if inside.is_symlink() or (inside.exists() and not inside.is_dir()):
        raise OutputError(f"cannot write into {inside}: it is not a folder", hint="move it away, and run again")
    gone = sorted(set(remove) - set(files))
    text = json.dumps({"files": files, "remove": gone}, indent=2)
    write_whole(folder / UNFINISHED / COMMIT_FILE, text.encode())
    finish(folder)


def settle(folder: Path) -> None:
    """Finish a commit whose process was killed, before the folder is read; raises `OutputError`."""
    if (folder / UNFINISHED / COMMIT_FILE).is_file():
        with locked(folder, wait=True):
            finish(folder)


def finish(folder: Path) -> None:
    """What `settle` does, for whoever holds the lock of the folder."""
    staged = folder / UNFINISHED
    if staged.is_symlink():
        return
    content = _read(staged / COMMIT_FILE)
    if content is None:
        return
    with writing(folder):
        if (staged / REPORT_FILE).exists():
            (folder / REPORT_FILE).unlink(missing_ok=True)
        for name in plain_names(content.get("remove")):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(plain_names(content.get("files")), key=lambda name: name == REPORT_FILE):
            with contextlib.suppress(FileNotFoundError):  # moved before the process was killed
                (folder / name).parent.mkdir(exist_ok=True)
                (staged / name).replace(folder / name)
        with contextlib.suppress(OSError):  # not there, or still in use
            (folder / PROGRAMS).rmdir()
        for path in staged.iterdir():
            if path.name != COMMIT_FILE:
                remove_all(path)
        (staged / COMMIT_FILE).unlink()
        staged.rmdir()


def plain_names(value: Any) -> list[str]:
    """The file names in a list of a file that may have been tampered with: none reaches outside of its folder."""
    names = value if isinstance(value, list) else []
    return [name for name in names if isinstance(name, str) and _plain(name.removeprefix(f"{PROGRAMS}/"))]


def _plain(name: str) -> bool:
    return Path(name).name == name and name not in ("", "..", UNFINISHED, PROGRAMS)


def remove_all(path: Path) -> None:
    """Remove a file, or a folder with everything in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False, by: str = "run") -> Iterator[None]:
    """Hold the lock of a folder that exists, which ends with the process, however that ends.

    Args:
        folder: The folder.
        wait: For another process that has the lock, instead of an error.
        by: What a process that has it is, for the message.

    Raises:
        OutputError: Another process has it.
    """
    handle = _locked(folder, wait, by)
    _held.add(handle)
    try:
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def _locked(folder: Path, wait: bool, by: str) -> int:
    while True:
        with writing(folder):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(handle)
                raise OutputError(
                    f"another {by} is at work in {folder}", hint="wait until it has ended, or choose another folder"
                ) from error
            return handle  # a file system without locks
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)  # the other run has removed its folder in the meantime
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)


def _let_go() -> None:
    """A child that was forked keeps no lock: it may outlive a parent that was killed."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json_object(read_text(path, OutputError))
    except OutputError:
        return None
