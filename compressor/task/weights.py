"""Loads the weights of any checkpoint into the user's model, and says aloud what had to be done for that."""

from __future__ import annotations

import fnmatch
import inspect
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import CheckpointError, TaskNote
from compressor.task.checkpoint_file import read
from compressor.task.state_dicts import in_dtypes, keys_of, listed, renamed, state_at, states, tensors_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor, nn

_SHOWN = 6
"""Problems of one file that an error lists."""


def load_weights(
    model: nn.Module, path: str | Path, *, key: str | None = None, ignore: Sequence[str] = ()
) -> nn.Module:
    """Load a checkpoint into `model` (on the CPU, whatever device it was saved on) and give the model back.

    Files of `torch.save` (state dicts, checkpoints of Lightning, fairseq, accelerate; whole modules, of which only the
    tensors are read), safetensors, their shards by index, folders of Hugging Face, and TorchScript. **No code of the
    file runs.** Prefixes that a wrapper put in front of all names are taken off, `weight_g` and `weight_v` become
    `weight`, half precision becomes the model's: each such change is told once, as a `TaskNote`.

    Args:
        model: The model; its parameters are overwritten.
        path: A file or folder; relative to the folder of the file that calls this, or else to the working folder.
        key: Where the state dict lies in a larger checkpoint, such as `model_state`; dots go deeper. Without it, the
            entry whose names fit the model.
        ignore: Globs of names in the file that the model does not need.

    Raises:
        CheckpointError: The file is missing, unreadable, or does not fit the model.
    """
    place = _resolved(Path(path))
    expected = dict(model.state_dict())
    state, notes = _fitting(read(place), expected, str(path), key, ignore, _optional(model, expected))
    for note in notes:
        warnings.warn(TaskNote(f"{path}: {note}"), stacklevel=2)
    model.load_state_dict(state, strict=False)
    return model


def load_module(path: str | Path, *, trust: bool = False) -> nn.Module:
    """Load a whole pickled module, which **runs code from the file**; refused unless `trust=True`."""
    import torch

    if not trust:
        raise CheckpointError(
            f"{path} is to be loaded as a pickled module, which runs code from the file",
            hint="build the model in the task and use `load_weights`, which reads only the tensors; or pass "
            "`trust=True` for a file of your own",
        )
    place = _resolved(Path(path))
    if not place.is_file():
        raise CheckpointError(f"no checkpoint at {path}", hint="check the path in the task file")
    module = torch.load(place, map_location="cpu", weights_only=False)
    if not isinstance(module, torch.nn.Module):
        raise CheckpointError(f"{path} holds a {type(module).__name__}, not a module")
    return module


def check_fit(
    expected: Mapping[str, Any], state: Mapping[str, Any], path: str, *, optional: Collection[str] = ()
) -> None:
    """Raise `CheckpointError` if names or shapes differ; `optional` names may be missing or be there."""
    shapes = {name: tuple(value.shape) for name, value in expected.items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    missing = sorted(shapes.keys() - theirs.keys() - set(optional))
    unexpected = sorted(theirs.keys() - shapes.keys() - set(optional))
    problems = [
        f"{word} keys: {listed(names)}" for word, names in (("missing", missing), ("unexpected", unexpected)) if names
    ]
    for name in sorted(shapes.keys() & theirs.keys()):
        if shapes[name] != theirs[name]:
            problems.append(f"`{name}` has shape {theirs[name]}, the model's is {shapes[name]}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit the model: " + "; ".join(problems[:_SHOWN]),
            hint="build the model with the sizes that it was trained with; "
            "`ignore=` leaves keys out, `key=` chooses another entry",
        )


def _resolved(path: Path) -> Path:
    """A relative path: beside the file whose code calls `load_weights`, or else in the working folder."""
    if path.is_absolute():
        return path
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    beside = Path(file).resolve().parent / path if file else path
    return beside if os.path.exists(beside) else path  # noqa: PTH110  a name that is too long is not there


def _optional(model: nn.Module, expected: Mapping[str, Any]) -> set[str]:
    """Names that a file may have or lack: counters of batch normalisation, buffers that are not saved."""
    counters = {name for name in expected if name.rpartition(".")[2] == "num_batches_tracked"}
    return counters | {name for name, _ in model.named_buffers() if name not in expected} | {"n_averaged"}


def _fitting(
    content: Any, expected: Mapping[str, Tensor], path: str, key: str | None, ignore: Sequence[str], optional: set[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The state for the model out of what a file holds, and what was done for that."""
    candidates = dict(states(content)) if key is None else {key: state_at(content, key, path)}
    if not candidates:
        raise CheckpointError(f"{path} holds no state dict", hint=f"it holds {keys_of(content)}")
    fits = []
    for place, state in candidates.items():
        needed = {name: value for name, value in state.items() if not any(fnmatch.fnmatch(name, g) for g in ignore)}
        fitting, notes = renamed(tensors_of(needed, path), expected)
        score = sum(name in fitting and fitting[name].shape == value.shape for name, value in expected.items())
        fits.append((score, place, fitting, notes))
    best = max(score for score, *_ in fits)
    chosen = [fit for fit in fits if fit[0] == best]
    if len(chosen) > 1:
        equal = ", ".join(f"`{place}`" for _, place, *_ in chosen)
        raise CheckpointError(
            f"{path} holds several state dicts that fit the model equally: {equal}", hint="give one as `key=`"
        )
    _, place, state, notes = chosen[0]
    if sum(score > 0 for score, *_ in fits) > 1:
        notes.insert(0, f"the weights are those of `{place}`")
    check_fit(expected, state, path, optional=optional)
    state, more = in_dtypes({name: value for name, value in state.items() if name in expected}, expected, path)
    return state, [*notes, *more]
