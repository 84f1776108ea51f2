"""The folder of a run: filled aside, put in place whole, and never at the cost of something older."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, OutputError
from compressor.files import writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from compressor.recipe.model import Recipe

REPORT_FILE = "report.json"
RESCUED = "unfinished"
"""Folder beside the results for what a run had made before it failed."""
_STAGING = ".staging-"
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class RunFolder:
    """`with RunFolder(out, ...) as folder:` write into `folder.staging`, then `commit()`.

    A run that fails removes its staging folder and leaves `out` as it was, missing if it was missing, except
    for the files of `keeping`. The staging folder is locked while its run lives, so that the next run can tell those of
    killed runs and removes them.
    """

    def __init__(self, out: Path, recipe: Recipe, *, quick: bool, force: bool) -> None:
        """Check that `out` may be written; raises `OutputError`."""
        self.out = out
        self._made = not out.exists()
        self._older = _older_files(out, recipe, quick=quick, force=force)

    def __enter__(self) -> RunFolder:
        """Make the staging folder beside the results, on the same file system."""
        with writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            _remove_dead(self.out)
            self.staging = Path(tempfile.mkdtemp(dir=self.out, prefix=_STAGING))
            self._alive = os.open(self.staging, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks, on which nothing is taken for dead
                fcntl.flock(self._alive, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove what was staged."""
        shutil.rmtree(self.staging, ignore_errors=True)
        os.close(self._alive)
        if self._made and error is not None and self.out.is_dir() and not any(self.out.iterdir()):
            self.out.rmdir()
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            with writing(self.out):
                raise error

    def write(self, name: str, text: str) -> None:
        """Write a text file into the staging folder."""
        with writing(self.out / name):
            (self.staging / name).write_text(text, encoding="utf-8")

    @contextlib.contextmanager
    def keeping(self, *names: str) -> Iterator[None]:
        """If the block fails, keep these staged files in `out/unfinished`; an error of ours says so."""
        try:
            yield
        except BaseException as error:
            rescued = self.out / RESCUED
            with writing(rescued):
                rescued.mkdir(exist_ok=True)
                for name in names:
                    (self.staging / name).replace(rescued / name)
            if isinstance(error, CompressorError):
                kept = f"the compressed weights are kept: `compressor.load({str(rescued)!r}, task)`"
                error.hint = kept if error.hint is None else f"{error.hint}; {kept}"
            raise

    def commit(self) -> None:
        """Put the staged files in place, `report.json` last: without it a folder does not look finished."""
        with writing(self.out):
            shutil.rmtree(self.out / RESCUED, ignore_errors=True)
            (self.out / REPORT_FILE).unlink(missing_ok=True)
            staged = sorted(self.staging.iterdir(), key=lambda path: path.name == REPORT_FILE)
            for name in self._older - {path.name for path in staged}:
                (self.out / name).unlink(missing_ok=True)
            for path in staged:
                path.replace(self.out / path.name)


def _remove_dead(out: Path) -> None:
    """Remove the staging folders that no process holds the lock of: their runs were killed."""
    for path in out.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):  # locked, no folder, or gone
            found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(found)


def _older_files(out: Path, recipe: Recipe, *, quick: bool, force: bool) -> set[str]:
    """The files of an older run in `out`, which this run may replace."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file", hint="give a folder with --out")
    report = out / REPORT_FILE
    if not report.exists():
        ours = (_STAGING, RESCUED)
        others = [path.name for path in out.iterdir() if not path.name.startswith(ours)] if out.is_dir() else []
        if others and not force:
            raise OutputError(
                f"{out} is not empty and holds no run of this tool ({', '.join(sorted(others)[:3])} ...)",
                hint="choose another --out; --force writes beside what is there",
            )
        return set()
    older = _read(report)
    if not force and older is None:
        raise OutputError(f"{report} cannot be read", hint="choose another --out, or --force to replace it")
    force = force or bool(older and older.get("quick"))  # a rehearsal is not worth keeping
    if not force and older is not None and older.get("recipe_sha256") != recipe.sha256():
        raise OutputError(
            f"{out} holds a run of {_other(older, recipe)}",
            hint="choose another --out, or --force to replace it",
        )
    if not force and quick:
        raise OutputError(
            f"{out} holds a full run, which a rehearsal would replace",
            hint="choose another --out for --quick, or --force",
        )
    files = older.get("files", []) if older else []
    # Names only: a report that was tampered with must not reach outside the folder.
    return {name for name in files if isinstance(name, str) and Path(name).name == name and name not in ("", "..")}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _other(older: Mapping[str, Any], recipe: Recipe) -> str:
    """How the recipe of an older run differs: by its name, or else by the first of its values."""
    name = older.get("name")
    if name != recipe.name:
        return f"another recipe (`{name}`)"
    before, after = _values(older.get("recipe")), _values(recipe.resolved())
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not changed:
        return f"another version of `{name}`"
    key = changed[0]
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"`{name}` with other options: {key} is {before.get(key)} there and {after.get(key)} now{more}"


def _values(value: Any, key: str = "") -> dict[str, Any]:
    """Every value of a recipe by its key, such as `steps.0.ratio`."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = {path: leaf for name, part in parts for path, leaf in _values(part, f"{key}.{name}").items()}
    return inner or {key.removeprefix("."): value}
