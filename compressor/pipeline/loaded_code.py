"""Files of the modules that are loaded: thousands, in few folders. Where one is, is looked up once a process."""

from __future__ import annotations

import functools
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def loaded_files() -> Iterator[Path]:
    """The file of each module that names one, links followed.

    Some modules, such as `torch.classes`, name a file that is nowhere; it is looked for in the working folder.
    """
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if isinstance(name, str):
            yield _real(name)


def site_folders() -> set[Path]:
    """Where packages are installed."""
    return {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}


def tool_folders() -> tuple[Path, Path]:
    """Where the code of this tool is."""
    package = _real_folder(Path(__file__).parent).parent
    return package, package.parent / "exporters"


@functools.cache
def is_of_user(file: Path) -> bool:
    """Whether a real path belongs neither to Python, nor to this tool, nor to an installed package."""
    return not any(file.is_relative_to(root) for root in _known_folders())


@functools.cache
def _known_folders() -> tuple[Path, ...]:
    return (*site_folders(), Path(sysconfig.get_path("stdlib")).resolve(), *tool_folders())


@functools.cache
def tool_files() -> tuple[tuple[str, str], ...]:
    """Each file of this tool, and its size and time as this process found them first."""
    files = [path for folder in tool_folders() for path in folder.rglob("*.py")]
    return tuple((str(path), f"{stat.st_size} {stat.st_mtime_ns}") for path in files for stat in (path.stat(),))


@functools.cache
def _real(name: str) -> Path:
    path = Path(name)
    path = _real_folder(path.parent) / path.name
    return path.resolve() if path.is_symlink() else path


@functools.cache
def _real_folder(folder: Path) -> Path:
    return folder.resolve()
