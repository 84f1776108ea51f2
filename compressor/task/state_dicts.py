"""Finds the state dict in what a checkpoint holds, and brings it into the names and dtypes of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compressor.errors import CheckpointError
from compressor.task.checkpoint_file import module_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_DEPTH = 4
"""How deep a state dict may lie in a checkpoint."""
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What DataParallel, torch.compile, FSDP and activation checkpointing put between the names of modules."""
_NORMED = (("{}_g", "{}_v"), ("parametrizations.{}.original0", "parametrizations.{}.original1"))
"""Names of g and v of a weight under `weight_norm`: of torch.nn.utils, and of its parametrizations."""
_SHOWN = 6
"""Names that a list shows."""


def states(content: Any, place: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping from text to tensors in what a file holds, by its place; of one such, its parts are left out."""
    state = module_state(content)
    if state is not None:
        yield place, state
    elif _is_state(content):
        yield place, content
    elif isinstance(content, Mapping) and depth:
        for name, part in content.items():
            yield from states(part, f"{place}.{name}" if place else str(name), depth - 1)


def _is_state(value: Any) -> bool:
    """A mapping that holds tensors under texts; other values beside them (a saved extra state) are no hindrance."""
    import torch

    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    return any(isinstance(part, torch.Tensor) for part in value.values())


def state_at(content: Any, key: str, path: str) -> Mapping[str, Any]:
    """The state dict at `key`; raises `CheckpointError` if there is none."""
    for part in [key] if isinstance(content, Mapping) and key in content else key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            raise CheckpointError(f"{path} has no `{key}`", hint=f"it holds {keys_of(content)}")
        content = content[part]
    state = module_state(content) or content
    if not _is_state(state):
        raise CheckpointError(f"`{key}` of {path} is not a state dict", hint=f"it holds {keys_of(content)}")
    return dict(state)


def tensors_of(state: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """The tensors alone; raises `CheckpointError` for those of a quantized model."""
    import torch

    quantized = [
        name
        for name, value in state.items()
        if name.endswith("_packed_params") or (isinstance(value, torch.Tensor) and value.is_quantized)
    ]
    if quantized:
        raise CheckpointError(
            f"{path} holds a quantized model (`{quantized[0]}`)",
            hint="give the float model that it was made of; `precision: int8` of an export rounds it",
        )
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def renamed(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The state under the model's names, as far as prefixes, wrappers and computed weights explain the difference."""
    notes: list[str] = []
    for change in (_without_wrappers, _without_prefix, _with_prefix, _other_norm, _multiplied_out):
        if expected.keys() <= state.keys():
            break
        state, note = change(state, expected)
        notes += [note] if note else []
    return state, notes


def _without_wrappers(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Without the parts of names that wrappers add, at any place."""

    def plain(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in _WRAPPERS)

    wrapped = {part for name in state for part in name.split(".") if part in _WRAPPERS}
    if not wrapped or any(set(name.split(".")) & wrapped for name in expected):
        return state, ""
    return {plain(name): value for name, value in state.items()}, f"{listed(sorted(wrapped))} taken out of the names"


def _without_prefix(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The part of the state under the prefix under which most of the model's names are found."""
    longest = max(expected, key=len, default="")
    prefixes = {name.removesuffix(longest) for name in state if name.endswith(f".{longest}")}
    counted = {prefix: sum(prefix + name in state for name in expected) for prefix in prefixes}
    best = max(counted, key=lambda prefix: (counted[prefix], -len(prefix)), default="")
    if not best or counted[best] <= sum(name in state for name in expected):
        return state, ""
    inside = {name.removeprefix(best): value for name, value in state.items() if name.startswith(best)}
    left = len(state) - len(inside)
    note = f"the prefix `{best}` taken off all names"
    return inside, note + (f", {left} tensors outside it left out" if left else "")


def _with_prefix(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The state under the one submodule of the model that has all its names."""
    prefixes = {name[: index + 1] for name in expected for index, letter in enumerate(name) if letter == "."}
    whole = [prefix for prefix in prefixes if all(prefix + name in expected for name in state)]
    if not whole:
        return state, ""
    prefix = min(whole, key=len)
    return {prefix + name: value for name, value in state.items()}, f"`{prefix}` put before all names"


def _other_norm(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Weight normalisation under the names of the model's kind, if the file has the other kind's."""
    state, moved = dict(state), []
    for name in expected.keys() - state.keys():
        for other in _names_of_other_kind(name):
            if other in state:
                state[name] = state.pop(other)
                moved.append(name)
    return state, f"weight normalisation under other names: {listed(sorted(moved))}" if moved else ""


def _names_of_other_kind(name: str) -> Iterator[str]:
    """`weight_g` for `parametrizations.weight.original0`, and the other way round."""
    for kind, other in ((_NORMED[0], _NORMED[1]), (_NORMED[1], _NORMED[0])):
        for mine, theirs in zip(kind, other, strict=True):
            pattern = re.escape(mine).replace(re.escape("{}"), r"(\w+?)")
            found = re.fullmatch(rf"(.*\.|){pattern}", name)
            if found:
                yield found[1] + theirs.format(found[2])


def _multiplied_out(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """G and v of weight normalisation as the `weight` that they make."""
    state, names = dict(state), []
    for name in expected:
        module, dot, local = name.rpartition(".")
        for g, v in ((module + dot + part.format(local) for part in kind) for kind in _NORMED):
            if name not in state and g in state and v in state:
                state[name] = _normed(state.pop(g), state.pop(v))
                names.append(name)
    return state, f"weight normalisation multiplied out in {listed(names)}" if names else ""


def _normed(g: Tensor, v: Tensor) -> Tensor:
    """G v / ||v||, the norm over all axes along which `g` has one entry (arXiv 1602.07868, equation 2)."""
    axes = [axis for axis in range(v.dim()) if g.dim() != v.dim() or g.size(axis) == 1]
    product: Tensor = g * v / (v.norm(dim=axes, keepdim=True) if axes else v.norm())
    return product


def in_dtypes(
    state: dict[str, Tensor], expected: Mapping[str, Tensor], path: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The state in the model's dtypes; raises `CheckpointError` if values would be lost or invented."""
    changed: dict[str, list[str]] = {}
    for name, value in state.items():
        wanted = expected[name].dtype
        if value.dtype == wanted:
            continue
        if value.is_floating_point() != wanted.is_floating_point or value.is_complex() != wanted.is_complex:
            raise CheckpointError(
                f"`{name}` of {path} is {_dtype(value.dtype)}, the model's is {_dtype(wanted)}",
                hint="these are other values than the model's: a quantized or an exported file? Give the float weights",
            )
        changed.setdefault(f"{_dtype(value.dtype)} to {_dtype(wanted)}", []).append(name)
    notes = [f"{len(names)} tensors converted from {kinds}" for kinds, names in changed.items()]
    return {name: value.to(expected[name].dtype) for name, value in state.items()}, notes


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of many."""
    more = len(names) - _SHOWN
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def keys_of(value: Any) -> str:
    """What a file holds, in words."""
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    return listed([str(name) for name in value]) or "nothing"
