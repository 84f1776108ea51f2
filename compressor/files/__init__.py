"""Files read if they are files, of a size that can be meant; written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import OutputError, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.errors import CompressorError

MOST_TEXT = 1 << 28
"""Bytes of the longest JSON text that is read."""


def read_text(path: Path, error: type[CompressorError], *, most: int = MOST_TEXT, hint: str | None = None) -> str:
    """The text of a regular file; a pipe or a device, which may never end, is not opened.

    Args:
        path: Of the file.
        error: Kind of the error that is raised.
        most: Bytes of the longest file that is read.
        hint: The remedy that an error names.

    Raises:
        error: It is missing, something else than a file, too long, unreadable or not UTF-8; the message says which.
    """
    try:
        kind = path.stat()
        if not stat.S_ISREG(kind.st_mode):
            raise error(f"`{path}` is {_kind_of(kind.st_mode)}, not a file", hint=hint)
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except FileNotFoundError:
        raise error(f"there is no file `{path}`", hint=hint) from None
    except OSError as reason:
        raise error(f"cannot read `{path}`: {reason.strerror}", hint=hint) from reason
    if len(content) > most:
        raise error(f"`{path}` is longer than {most >> 10:,} KiB", hint=hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line, byte = content[: reason.start].count(b"\n") + 1, content[reason.start]
        place = Place(str(path), line)
        raise error(f"`{path}` is not UTF-8 text (byte 0x{byte:02x})", place=place, hint=hint) from None


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a JSON text holds; None for another value, and for what is no JSON or nested too deep."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _kind_of(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or another special file"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary neighbour, flushed to disk, then renamed."""
    write_all({path: content})


def write_all(files: Mapping[Path, bytes | Path]) -> None:
    """Write files that belong together: all are whole on the disk before the first gets its name.

    What a file gets is given, or copied from another one.

    Raises:
        OutputError: One cannot be written, or something else than a file has its name; then none of them is replaced.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in ((destination(path), content) for path, content in files.items()):
            with writing(path):
                handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
                written[path] = Path(temporary)
                with os.fdopen(handle, "wb") as stream:
                    if isinstance(content, bytes):
                        stream.write(content)
                    else:
                        with content.open("rb") as source:
                            shutil.copyfileobj(source, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                written[path].chmod(0o644)
        for path, whole in written.items():
            with writing(path):
                whole.replace(path)
    finally:
        for whole in written.values():
            whole.unlink(missing_ok=True)


def destination(path: Path) -> Path:
    """Where a file called `path` is written: there, or where a link of that name leads within its folder.

    Raises:
        OutputError: A folder, a device or another special file has the name, or a link that leads out of the folder.
    """
    with writing(path):
        if not path.is_symlink() and not path.exists():
            return path
        target = path.resolve() if path.is_symlink() else path
        if target.parent != path.parent.resolve() and path.is_symlink():
            raise OutputError(
                f"{path} is a link to {target}, outside of its folder", hint="give another name, or remove the link"
            )
        kind = target.stat().st_mode
    if not stat.S_ISREG(kind):
        raise OutputError(f"{path} is {_kind_of(kind)}, and only a regular file is replaced", hint="give another name")
    return target


def sha256(path: Path) -> str:
    """SHA-256 of what a file holds, in hexadecimal digits; raises `OutputError` if it cannot be read, or is no file."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise OutputError(f"{path} cannot be read: it is {_kind_of(kind)}")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # a name with a null byte is a `ValueError`
        raise OutputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says while `path` is written into an `OutputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}",
            hint="choose another --out, or fix its permissions or free some space; nothing older was overwritten",
        ) from error


def cache_folder() -> Path:
    """The user's cache folder for this tool: `$XDG_CACHE_HOME/compressor`, or `~/.cache/compressor`."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "compressor"
