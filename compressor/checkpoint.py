"""Checkpoints in and out: nothing in them is executed, and nothing half-written looks finished."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import CheckpointError
from compressor.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.task.contract import Task

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "model.json"
RECORD_VERSION = 1


def load_weights(
    model: nn.Module, path: str | Path, *, key: str | None = None, ignore: Sequence[str] = ()
) -> nn.Module:
    """Load a state dict into `model` (on the CPU, whatever device it was saved on) and give the model back.

    Args:
        model: The model; its parameters are overwritten.
        path: A `.safetensors` file, or a file of `torch.save`, read with `weights_only=True`.
        key: Where the state dict lies in a larger checkpoint, such as `model_state`; dots go deeper. Without it, the
            checkpoint itself or its only dictionary of tensors.
        ignore: Globs of keys in the file that the model does not need.

    Raises:
        CheckpointError: The file is missing, unreadable, would run code, or does not fit the model.
    """
    state = _state_dict(Path(path), key)
    state = {name: value for name, value in state.items() if not any(fnmatch.fnmatch(name, g) for g in ignore)}
    if state and all(name.startswith("module.") for name in state):
        # `nn.DataParallel` puts this in front of every name.
        state = {name.removeprefix("module."): value for name, value in state.items()}
    _check_fit(model, state, str(path))
    model.load_state_dict(state)
    return model


def load_module(path: str | Path, *, trust: bool = False) -> nn.Module:
    """Load a whole pickled module, which **runs code from the file**; refused unless `trust=True`."""
    import torch

    if not trust:
        raise CheckpointError(
            f"{path} is to be loaded as a pickled module, which runs code from the file",
            hint="save a state dict and use `load_weights`, or pass `trust=True` for a file of your own",
        )
    module = torch.load(_existing(Path(path)), map_location="cpu", weights_only=False)
    if not isinstance(module, torch.nn.Module):
        raise CheckpointError(f"{path} holds a {type(module).__name__}, not a module")
    return module


def load(folder: str | Path, task: Task) -> nn.Module:
    """Rebuild a compressed model from a run directory: the task's own class, resized, weights bit-equal; no pickle."""
    from safetensors.torch import load_file

    from compressor.surgery.rebuild import rebuild

    record = _read_record(Path(folder) / RECORD_FILE)
    model = rebuild(task.model(), record["structure"], task.attention)
    weights = load_file(_existing(Path(folder) / WEIGHTS_FILE))
    state = dict(weights) | {alias: weights[name] for alias, name in record["aliases"].items()}
    _check_fit(model, state, str(Path(folder) / WEIGHTS_FILE))
    model.load_state_dict(state)
    return model.eval()


def save(folder: Path, model: nn.Module, structure: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Write `model.safetensors` and `model.json` into `folder`; gives their names.

    The record holds how to rebuild the structure in the user's own class, and which names share one tensor.
    """
    from safetensors.torch import save as to_bytes

    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for name, value in model.state_dict().items():
        identity = (value.data_ptr(), tuple(value.shape), tuple(value.stride()))
        if value.numel() and identity in owners:
            aliases[name] = owners[identity]
        else:
            owners[identity] = name
            kept[name] = value.detach().cpu().contiguous().clone()
    record = {"schema_version": RECORD_VERSION, "structure": list(structure), "aliases": aliases}
    write_whole(folder / WEIGHTS_FILE, to_bytes(kept))
    write_whole(folder / RECORD_FILE, (json.dumps(record, indent=2) + "\n").encode())
    return WEIGHTS_FILE, RECORD_FILE


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", hint="check the path in the task file")
    return path


def _state_dict(path: Path, key: str | None) -> dict[str, Tensor]:
    content = _read(_existing(path))
    if key is not None:
        for part in key.split("."):
            if not isinstance(content, Mapping) or part not in content:
                raise CheckpointError(f"{path} has no `{key}`", hint=f"it holds {_keys(content)}")
            content = content[part]
        if not _is_state(content):
            raise CheckpointError(f"`{key}` of {path} is not a state dict", hint=f"it holds {_keys(content)}")
        return dict(content)
    if _is_state(content):
        return dict(content)
    candidates = [name for name, part in content.items() if _is_state(part)] if isinstance(content, Mapping) else []
    if len(candidates) != 1:
        which = f"several: {', '.join(map(str, candidates))}" if candidates else "none"
        raise CheckpointError(
            f"{path} is not a state dict, and of its entries {which} is one",
            hint=f"give `key=`; it holds {_keys(content)}",
        )
    return dict(content[candidates[0]])


def _read(path: Path) -> Any:
    import pickle

    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" (`{found.group(1)}`)" if found else ""
        raise CheckpointError(
            f"{path} holds pickled objects{what}: loading it would run code from the file, so it was not loaded",
            hint="save a state dict (`torch.save(model.state_dict(), ...)`) or safetensors; for a file of your own, "
            "`compressor.load_module(path, trust=True)`",
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}",
            hint="expected a .safetensors file or a file of torch.save; it may be cut off",
        ) from error


def _is_state(value: Any) -> bool:
    import torch

    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def _keys(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    names = [f"`{name}`" for name in list(value)[:8]]
    return ", ".join(names) + (" ..." if len(value) > 8 else "") if names else "nothing"


def _check_fit(model: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    problems = []
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    if missing:
        problems.append("missing keys: " + ", ".join(f"`{name}`" for name in missing))
    if unexpected:
        problems.append("unexpected keys: " + ", ".join(f"`{name}`" for name in unexpected))
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            problems.append(f"`{name}` has shape {found[name]}, the model's is {expected[name]}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}: " + "; ".join(problems[:6]),
            hint="build the model with the sizes that it was trained with; "
            "`ignore=` leaves keys out, `key=` chooses another entry",
        )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_existing(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint="run the recipe again") from error
    if not isinstance(record, dict) or record.get("schema_version") != RECORD_VERSION:
        raise CheckpointError(f"{path} is not a record of this version", hint="run the recipe again")
    if not isinstance(record.get("structure"), list) or not isinstance(record.get("aliases"), dict):
        raise CheckpointError(f"{path} lacks `structure` or `aliases`", hint="run the recipe again")
    return record
