"""Fingerprints of what results follow from: a run goes on, and a cached result counts, only if all of them are equal.

One place for everything that is kept beyond a process: the journal of a run, the sensitivity map, results of a search.
"""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from compressor.files import sha256
from compressor.pipeline.loaded_code import loaded_files
from compressor.report import Fingerprints
from compressor.task.files_read import data_files
from compressor.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from compressor.task.guard import GuardedTask
    from compressor.task.samples import Sample

PACKAGES: Final = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy")
"""Packages whose results go into files and numbers."""
_WHOLE: Final = 1 << 26
"""Bytes up to which the whole content of a data file is hashed."""
_ENDS: Final = 1 << 20
"""Bytes that are hashed at each end of a larger one."""


def fingerprints(task: GuardedTask, model: nn.Module, samples: Iterable[Sample]) -> Fingerprints:
    """Everything that a result of this task's model follows from, besides what is done with it.

    Args:
        task: After it was tried: it has then opened its data.
        model: The task's model, not changed.
        samples: Inputs on which it was tried.
    """
    folder = Path(task.file).resolve().parent
    return Fingerprints(
        code={_shown(path, folder): sha256(path) for path in code_files(Path(task.file))},
        model=of_model(model),
        samples=digest(*[[sample.origin, *map(_of_tensor, sample.inputs)] for sample in samples]),
        data={_shown(path, folder): _of_file(path) for path in data_files(task.opened)},
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of Python, the tool and `PACKAGES`."""
    installed = {package: metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), "compressor": VERSION, **installed}


def code_files(task_file: Path) -> list[Path]:
    """The task file, and what is imported so far of its folder; environments inside of it are not the user's code."""
    file = task_file.resolve()
    beside = (path for path in set(loaded_files()) if path.is_relative_to(file.parent) and path != file)
    return [file, *sorted(path for path in beside if "site-packages" not in path.parts and path.is_file())]


def of_model(model: nn.Module) -> str:
    """Of a model's structure, as it is printed, and of every entry of its state."""
    facts = [[name, _of_tensor(tensor)] for name, tensor in model.state_dict().items()]
    return digest(str(model), facts)


def digest(*facts: Any) -> str:
    """SHA-256 of facts that JSON can hold, in hexadecimal digits: the key of a cached result."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def changes(before: Fingerprints, after: Fingerprints, task_file: str) -> list[str]:
    """What is not as it was, one line each; empty if a result from `before` holds.

    Files are those of `before`, as they are now: which of them are opened in a trial may depend on its time.
    """
    folder = Path(task_file).resolve().parent
    names = {**before.versions, **after.versions}
    changed = [
        f"{name} is {after.versions.get(name)} and was {before.versions.get(name)}"
        for name in names
        if before.versions.get(name) != after.versions.get(name)
    ]
    for files, now in ((before.code, sha256), (before.data, _of_file)):
        for shown, content in files.items():
            path = folder / Path(shown).expanduser()
            if not path.is_file():
                changed.append(f"{shown} is gone")
            elif now(path) != content:
                changed.append(f"{shown} was changed")
    if before.model != after.model:
        changed.append("the model has other weights or another structure: its checkpoint was changed")
    if before.samples != after.samples:
        changed.append("the task gives other inputs: its data was changed")
    return changed


def _shown(path: Path, folder: Path) -> str:
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _of_tensor(tensor: torch.Tensor) -> str:
    """Of type, shape and values."""
    value = tensor.detach().cpu().contiguous()
    content = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}\n".encode())
    content.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def _of_file(path: Path) -> str:
    """Of the content; of a file above 64 MiB of its size and its ends, which is enough for a download or an edit."""
    size = path.stat().st_size
    if size <= _WHOLE:
        return sha256(path)
    with path.open("rb") as stream:
        content = hashlib.sha256(f"{size}\n".encode() + stream.read(_ENDS))
        stream.seek(-_ENDS, 2)
        content.update(stream.read())
    return content.hexdigest()
