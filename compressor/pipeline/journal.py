"""The journal of a run: every finished part is kept, so that the same command goes on after a kill.

A part is one safetensors file with JSON in its header, written whole or not at all: what the part gave, the names and
hashes of the files that it wrote, and the state of the random generators after it. A run that goes on ends as if it had
never been killed, because the parts follow each other in one order and begin from the same random numbers.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any, TypeVar

from compressor.errors import OutputError
from compressor.files import sha256, writing
from compressor.files.staged import remove_all
from compressor.pipeline.parts import Kept, read_part, write_part
from compressor.task.random_state import random_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from compressor.pipeline.parts import Form, Part

T = TypeVar("T")
_ENDING = ".safetensors"
FOLDER = "journal"
STEP = "step "
"""What the names of parts begin with that belong to a step of the recipe."""


def _no_files(_: Any) -> tuple[str, ...]:
    return ()


class Journal:
    """The finished parts of a run, by name, in the order in which they were finished."""

    def __init__(self, staging: Path, device: torch.device) -> None:
        """`staging` is the folder of the run's files; the journal is a folder in it."""
        self._staging = staging
        self._folder = staging / FOLDER
        self._device = device
        self.is_own = False
        """Whether it is known to be the journal of this run."""
        self.reused = (0.0, 0.0)
        """Seconds, and seconds of the processor, that parts took which were not done again."""

    @property
    def is_empty(self) -> bool:
        """Whether no part is finished."""
        return not any(self._folder.glob(f"*{_ENDING}"))

    @property
    def has_steps(self) -> bool:
        """Whether a step of the recipe is finished, or in the middle of a training."""
        return any(name.startswith(STEP) for name in self.names())

    def part(
        self, name: str, form: Form[T], make: Callable[[], T], *, files: Callable[[T], Iterable[str]] = _no_files
    ) -> T:
        """The result of a part: the one that is kept, or else the one of `make`, which is then kept.

        Args:
            name: Of the part, unique in the run; also shown.
            form: How the result is kept.
            make: Does the work.
            files: From the result the names of files in the staging folder that belong to it.
        """
        known = self._read(name)
        if known is not None and all(self._unchanged(*file) for file in known.head["files"].items()):
            try:
                value = form.read(known.kept)
            except (ValueError, KeyError, TypeError):
                pass  # of a damaged file; it is made again
            else:
                known.restore(self._device)
                spent = known.head["seconds"]
                self.reused = (self.reused[0] + spent[0], self.reused[1] + spent[1])
                return value
        wall, processor = time.perf_counter(), time.process_time()
        value = make()
        seconds = [time.perf_counter() - wall, time.process_time() - processor]
        written = {file: sha256(self._staging / file) for file in files(value)}
        self._write(name, form.write(value), written, seconds)
        return value

    def has(self, name: str) -> bool:
        """Whether something is kept under a name."""
        return self._path(name).is_file()

    def file_of(self, name: str) -> Path:
        """Where what is kept under a name lies."""
        return self._path(name)

    def adopt(self, name: str, path: Path) -> bool:
        """Take over a part of another run, with its files, which lie beside it; whether it is whole.

        Args:
            name: Under which it is kept here.
            path: Where it lies. It took no time of this run.
        """
        known = read_part(path)
        if known is None:
            return False
        with writing(self._staging):
            for file, content in known.head["files"].items():
                source = path.parent / file
                if not source.is_file() or source.is_symlink() or sha256(source) != content:
                    return False
                shutil.copyfile(source, self._staging / file)
        write_part(self._path(name), {**known.head, "seconds": [0.0, 0.0]}, known.tensors)
        return True

    def snapshots(self, name: str) -> Snapshots:
        """Where a part that takes long keeps where it is."""
        return Snapshots(self, name)

    def load(self, name: str) -> Kept | None:
        """What `save` kept under a name, random generators set to where they were then; None if there is nothing."""
        known = self._read(name)
        if known is None:
            return None
        known.restore(self._device)
        return known.kept

    def save(self, name: str, kept: Kept) -> None:
        """Keep something under a name; it replaces what was kept there."""
        self._write(name, kept, {}, [0.0, 0.0])

    def forget(self, name: str) -> None:
        """Remove what is kept under a name."""
        self._path(name).unlink(missing_ok=True)

    def files(self) -> set[str]:
        """The names of all files that belong to a finished part."""
        heads = [known.head for name in self.names() if (known := self._read(name)) is not None]
        return {file for head in heads for file in head["files"]}

    def names(self) -> list[str]:
        """Of what is kept, the oldest first."""
        paths = sorted(self._folder.glob(f"*{_ENDING}"), key=lambda path: path.stat().st_mtime_ns)
        return [path.name.removesuffix(_ENDING) for path in paths]

    def clear(self, *, keep: str = "") -> None:
        """Forget everything, files in the staging folder included, but for the one called `keep`."""
        with writing(self._staging):
            for path in self._staging.iterdir():
                if path.name != keep:
                    remove_all(path)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.replace('/', '_')}{_ENDING}"

    def _unchanged(self, name: str, content: str) -> bool:
        try:
            return sha256(self._staging / name) == content
        except OutputError:
            return False

    def _write(self, name: str, kept: Kept, files: Mapping[str, str], seconds: list[float]) -> None:
        tensors, others = random_state(self._device)
        own = {key: value.detach().cpu().contiguous().clone() for key, value in kept.tensors.items()}
        head = {"facts": kept.facts, "files": dict(files), "seconds": seconds, "random": others}
        write_part(self._path(name), head, {**own, **tensors})

    def _read(self, name: str) -> Part | None:
        """A part that is whole; None if there is none."""
        return read_part(self._path(name))


class Snapshots:
    """Where a part is that takes long: one snapshot, each replaces the one before."""

    def __init__(self, journal: Journal, name: str) -> None:
        """`name` is that of the part."""
        self._journal = journal
        self._name = f"{name}, epochs"
        self._due = 0.0

    def load(self) -> tuple[Mapping[str, Tensor], Any] | None:
        """Tensors and facts of the latest snapshot; random generators go on from there."""
        kept = self._journal.load(self._name)
        return None if kept is None else (kept.tensors, kept.facts)

    def save(self, tensors: Callable[[], Mapping[str, Tensor]], facts: Callable[[], Any]) -> None:
        """Keep a snapshot, unless that would take more than a small part of the time since the last one."""
        started = time.perf_counter()
        if started < self._due:
            return
        self._journal.save(self._name, Kept(facts(), tensors()))
        ended = time.perf_counter()
        self._due = ended + _SPARSELY * (ended - started)

    def forget(self) -> None:
        """The part is finished."""
        self._journal.forget(self._name)


_SPARSELY = 50.0
"""Times that a snapshot takes, after which there is another one: they cost at most 2 % of the time."""
