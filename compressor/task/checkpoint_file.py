"""Reads checkpoint files of any origin; nothing in them is executed.

`torch.load(weights_only=True)` stops at the first class it does not know: hyperparameters of Lightning, `Namespace`s of
fairseq, whole modules. Here every such class becomes an inert `Placeholder` that only keeps what the file says, so that
the tensors beside it can be read. No class or function that the file names is looked up or called.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import CheckpointError
from compressor.files import json_object, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

_HEAD = 1024
_MOST_CLASSES = 500
"""Classes that one file may name before it is given up."""
_UNKNOWN = re.compile(r"Unsupported global: GLOBAL (\S+) was not an allowed global")
_INDEX = ".index.json"
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_OTHER_FORMATS = (
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
)


class Placeholder:
    """An object of a class that was not looked up: `arguments` of its making and its attributes, as data."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """Keep what the file hands over."""
        self.arguments, self.keywords = arguments, keywords

    def __setstate__(self, state: Any) -> None:
        """Attributes of the pickled object."""
        self.state = state

    def __reduce__(self) -> Any:
        """Not to be written again."""
        raise TypeError("a placeholder cannot be pickled")


def read(path: Path) -> Any:
    """What a checkpoint file, or a Hugging Face folder, holds: tensors in mappings, other objects as placeholders.

    Raises:
        CheckpointError: It is missing, damaged, or something else than a checkpoint; the message says what it is.
    """
    try:
        kind = path.stat().st_mode
    except OSError as error:
        raise CheckpointError(
            f"no checkpoint at {path}: {error.strerror}", hint="check the path in the task file"
        ) from error
    if stat.S_ISDIR(kind):
        return _folder(path)
    if not stat.S_ISREG(kind):
        raise CheckpointError(f"{path} is neither a file nor a folder", hint="give the path of a checkpoint file")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    _refuse_other_kinds(path, head)
    if path.name.endswith(_INDEX):
        return _sharded(path)
    if _is_safetensors(head):
        return read_safetensors(path)
    if head.startswith(b"PK") and (script := _torch_script(path)) is not None:
        return script
    return _torch_save(path)


def _folder(path: Path) -> Any:
    for name in _INDEXES:
        if (path / name).is_file():
            return _sharded(path / name)
    for name in _SINGLE:
        if (path / name).is_file():
            return read(path / name)
    raise CheckpointError(
        f"{path} is a folder without {', '.join(f'`{name}`' for name in (*_INDEXES, *_SINGLE))}",
        hint="give the path of the checkpoint file",
    )


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Things that are often found where a checkpoint should be."""
    text = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"{path} is empty", hint="the download or the copy failed: get the file again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file itself", hint="`git lfs pull` in its repository gets the file"
        )
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path} is a web page, not a checkpoint", hint="the download gave a page (a login?): get the file itself"
        )
    for magic, name in _OTHER_FORMATS:
        if head.startswith(magic):
            raise CheckpointError(
                f"{path} is {name}, not a checkpoint of PyTorch", hint="give a file of torch.save or safetensors"
            )
    if path.name.endswith(_INDEX):
        return
    if head.isascii() and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        start = head.decode("ascii").split("\n")[0][:40]
        raise CheckpointError(
            f"{path} is a text file, not a checkpoint: it starts with {start!r}",
            hint="give a file of torch.save or safetensors",
        )


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{"


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name; raises `CheckpointError` if it is none, or damaged."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _sharded(index: Path) -> dict[str, Any]:
    """All tensors of the files that an index names; these must lie beside it."""
    try:
        places = (json_object(read_text(index, CheckpointError, hint="get the file again")) or {})["weight_map"]
        files = sorted(set(places.values()))
        plain = all(isinstance(name, str) and name == Path(name).name for name in files)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: it has no `weight_map` of names") from error
    if not plain:
        raise CheckpointError(f"{index} names files outside its own folder", hint="an index names files beside it")
    if any(name.endswith(_INDEX) for name in files):
        raise CheckpointError(f"{index} names an index among its shards", hint="an index names files of tensors")
    tensors: dict[str, Any] = {}
    for name in files:
        tensors.update(read(index.with_name(name)))
    missing = sorted(set(places) - set(tensors))
    if missing:
        raise CheckpointError(f"the shards of {index} lack `{missing[0]}`", hint="a shard belongs to another version")
    return {name: tensors[name] for name in places}


def _torch_script(path: Path) -> dict[str, Any] | None:
    """Parameters and buffers of a TorchScript file, from its pickled data; its code is not compiled or run.

    None if the archive is not one of TorchScript.
    """
    from torch._weights_only_unpickler import Unpickler

    try:
        with zipfile.ZipFile(path) as archive:
            constants = next((name for name in archive.namelist() if name.endswith("/constants.pkl")), None)
            if constants is None:
                return None
            folder = constants.removesuffix("constants.pkl")
            content = archive.read(f"{folder}data.pkl")

            def load(known: Sequence[str]) -> Any:
                with _inert(known):
                    unpickler = Unpickler(io.BytesIO(content))
                    unpickler.persistent_load = partial(_storage, archive, f"{folder}data/")  # type: ignore[method-assign]
                    return unpickler.load()

            return module_state(_retrying(load)) or {}
    except Exception as error:
        raise _unreadable(path, error) from error


def _storage(archive: zipfile.ZipFile, folder: str, key: tuple[Any, ...]) -> Any:
    """The storage of a tensor in an archive; `key` is ("storage", storage class, file name, device, elements)."""
    import torch

    kind, name = key[1], str(key[2])
    dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
    content = torch.frombuffer(bytearray(archive.read(folder + name)), dtype=torch.uint8)
    return torch.storage.TypedStorage(wrap_storage=content.untyped_storage(), dtype=dtype, _internal=True)


def _torch_save(path: Path) -> Any:
    import torch

    def load(known: Sequence[str]) -> Any:
        with _inert(known):
            return torch.load(path, map_location="cpu", weights_only=True)

    try:
        return _retrying(load)
    except Exception as error:
        raise _unreadable(path, error) from error


def _inert(names: Sequence[str]) -> AbstractContextManager[None]:
    """Let `torch.load` take a placeholder for each of these classes; those that PyTorch blocks stay refused."""
    from torch.serialization import safe_globals

    return safe_globals([(type(name.rpartition(".")[2], (Placeholder,), {}), name) for name in names])


def _retrying(load: Callable[[Sequence[str]], Any]) -> Any:
    """Load again and again with one more placeholder, until no class is unknown.

    The names cannot be listed beforehand: PyTorch does so for its newer files only.
    """
    names: list[str] = []
    while True:
        try:
            return load(names)
        except Exception as error:
            unknown = _UNKNOWN.search(str(error))
            name = "" if unknown is None else unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}"
            if not name or name in names or len(names) >= _MOST_CLASSES:
                raise
            names.append(name)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    text = str(error)
    if "GLOBAL" in text:  # a class or function that is blocked, whatever stands for it
        return CheckpointError(
            f"{path} holds objects that cannot be read without running code from the file, so it was not loaded",
            hint="save a state dict (`torch.save(model.state_dict(), ...)`) or safetensors",
        )
    reason = next((line.strip() for line in text.splitlines() if "WeightsUnpickler" in line), text.partition("\n")[0])
    return CheckpointError(
        f"{path} cannot be read as a checkpoint: {type(error).__name__}: {reason}",
        hint="expected a file of torch.save or safetensors; it may be cut off: get the file again",
    )


def module_state(value: Any) -> dict[str, Any] | None:
    """The state dict of a pickled module that was read as placeholders; None if `value` is none."""
    if not isinstance(value, Placeholder):
        return None
    state = dict(_module_tensors(value, ""))
    return state or None


def _module_tensors(module: Placeholder, prefix: str) -> Iterator[tuple[str, Any]]:
    attributes = _attributes(module)
    for part in ("_parameters", "_buffers"):
        for name, tensor in _items(attributes.get(part)):
            if tensor is not None and name not in attributes.get("_non_persistent_buffers_set", ()):
                yield prefix + name, tensor
    for name, child in _items(attributes.get("_modules")):
        if isinstance(child, Placeholder):
            yield from _module_tensors(child, f"{prefix}{name}.")
    if "_modules" not in attributes:  # a scripted module keeps tensors and submodules as plain attributes
        yield from _scripted_tensors(attributes, prefix)


def _scripted_tensors(attributes: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    import torch

    for name, value in attributes.items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, Placeholder):
            yield from _module_tensors(value, f"{prefix}{name}.")


def _attributes(module: Placeholder) -> Mapping[str, Any]:
    state = getattr(module, "state", None)
    return state if isinstance(state, Mapping) else {}


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []
