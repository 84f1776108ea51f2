"""The folder of a run: filled aside, put in place whole, and never at the cost of something older."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Any

from compressor import checkpoint
from compressor.errors import CompressorError, OutputError
from compressor.files import json_object, read_text, staged, writing
from compressor.files.staged import REPORT_FILE, UNFINISHED, plain_names
from compressor.pipeline.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    import torch

    from compressor.recipe.model import Recipe

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class RunFolder:
    """`with RunFolder(out, ...) as folder:` write into `folder.staging`, then `commit(names)`.

    Only one run at a time is at work in a folder. What a run has finished when it fails or is killed stays in
    `out/unfinished`, from where the same command goes on; everything else in `out` stays as it was. If nothing was
    finished, or a task or a recipe is refused before the first step, nothing is left, and `out` is missing if it was
    missing.
    """

    def __init__(self, out: Path, recipe: Recipe, device: torch.device, *, quick: bool, force: bool) -> None:
        """`quick` and `force` say which older runs in `out` may be replaced."""
        self.out = out
        self._recipe, self._quick, self.force = recipe, quick, force
        self.staging = out / UNFINISHED
        self.journal = Journal(self.staging, device)

    def __enter__(self) -> RunFolder:
        """Lock the folder, finish what a killed process had begun to put in place, and look at what is there.

        Raises:
            OutputError: It may not be written, or holds something that this run may not replace.
        """
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file", hint="give a folder with --out")
        self._made = not self.out.exists()
        with writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(staged.locked(self.out))
            stack.callback(self._remove_if_empty)
            staged.finish(self.out)
            self._older = _older_files(self.out, self._recipe, quick=self._quick, force=self.force)
            if self.staging.is_symlink():
                raise OutputError(f"{self.staging} is a link", hint="remove it, or choose another --out")
            with writing(self.staging):
                self.staging.mkdir(exist_ok=True)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep what is finished, say so, and let the folder go."""
        with self._held:
            if isinstance(error, CompressorError) and self.journal.is_own:
                if not self.journal.has_steps and not isinstance(error, OutputError):
                    self.journal.clear()  # the recipe or the task has to be changed, and little is lost
                elif not self.journal.is_empty:
                    error.hint = f"{error.hint}; {self.kept()}" if error.hint else self.kept()
            if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
                with writing(self.out):
                    raise error

    def write(self, name: str, text: str) -> None:
        """Write a text file into the staging folder."""
        with writing(self.out / name):
            (self.staging / name).parent.mkdir(exist_ok=True)
            (self.staging / name).write_text(text, encoding="utf-8")

    def commit(self, names: Iterable[str]) -> None:
        """Put these staged files in place of the older run's: all of them or none, whenever the process is killed."""
        staged.commit(self.out, names, remove=self._older)

    def kept(self) -> str:
        """What a run that ended early has left."""
        kept = f"what is finished is kept in {self.staging}: the same command goes on, --restart begins anew"
        if (self.staging / checkpoint.RECORD_FILE).is_file():
            kept += f"; the compressed weights: `compressor.load({str(self.staging)!r}, task)`"
        return kept

    def _remove_if_empty(self) -> None:
        """Remove a staging folder in which nothing is finished, and the folder if this run made it for nothing."""
        if self.staging.is_dir() and not self.staging.is_symlink() and self.journal.is_empty:
            staged.remove_all(self.staging)
        if self._made and not any(self.out.iterdir()):
            self.out.rmdir()


def _older_files(out: Path, recipe: Recipe, *, quick: bool, force: bool) -> set[str]:
    """The files of an older run in `out`, which this run may replace."""
    report = out / REPORT_FILE
    if not report.exists():
        others = [path.name for path in out.iterdir() if path.name != UNFINISHED]
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
    return set(plain_names(older.get("files"))) if older else set()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json_object(read_text(path, OutputError))
    except OutputError:
        return None


def _other(older: Mapping[str, Any], recipe: Recipe) -> str:
    """How the recipe of an older run differs: by its name, or else by the first of its values."""
    name = older.get("name")
    if name != recipe.name:
        return f"another recipe (`{name}`)"
    changed = differences(older.get("recipe"), recipe.resolved())
    if not changed:
        return f"another version of `{name}`"
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"`{name}` with other options: {changed[0]}{more}"


def differences(before: Any, after: Any) -> list[str]:
    """Every value that differs between an older recipe and a newer one, such as `ratio is 0.5 there and 0.4 now`."""
    there, now = _values(before), _values(after)
    changed = [key for key in {**there, **now} if there.get(key) != now.get(key)]
    return [f"{key} is {there.get(key)} there and {now.get(key)} now" for key in changed]


def _values(value: Any, key: str = "") -> dict[str, Any]:
    """Every value of a recipe by its key, such as `steps.0.ratio`."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = {path: leaf for name, part in parts for path, leaf in _values(part, f"{key}.{name}").items()}
    return inner or {key.removeprefix("."): value}
