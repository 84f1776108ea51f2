"""The structure of nested values: where their tensors are, how these are called, and all else that they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Iterable

CONSTANTS = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
"""What a call may hold beside tensors; the same in every call."""


@dataclass(frozen=True)
class Tree:
    """The structure of a value: where its tensors are, how they are called, and all else that it holds."""

    spec: pytree.TreeSpec
    names: tuple[str, ...]
    """One for each tensor, from its place: `state.0`."""
    constants: tuple[Any, ...]
    """For each leaf what it is, `Tensor` (the class) for a tensor."""

    @classmethod
    def of(cls, value: Any, what: str) -> tuple[Tree, tuple[Tensor, ...]]:
        """The structure and the tensors of `value`; raises `TaskError` for leaves of other kinds."""
        _register_dataclasses(value)
        paths, spec = pytree.tree_flatten_with_path(value)
        names: list[str] = []
        constants: list[Any] = []
        tensors: list[Tensor] = []
        for path, leaf in paths:
            name = ".".join(_key(part) for part in path)
            if isinstance(leaf, (Tensor, np.ndarray)):
                names.append(name)
                constants.append(Tensor)
                tensors.append(_as_tensor(leaf))
            elif isinstance(leaf, CONSTANTS):
                constants.append(leaf)
            else:
                raise TaskError(
                    f"{what} {f'`{name}` ' if name else ''}is a {type(leaf).__name__}: only tensors, numbers, text, "
                    "None, and tuples, lists, dictionaries, named tuples and dataclasses of them can be followed",
                    hint="set `model.config.use_cache = False` in the task's `model`"
                    if type(leaf).__name__.endswith("Cache")
                    else "take the tensors out of it, or register the class with torch.utils._pytree",
                )
        return cls(spec, tuple(names), tuple(constants)), tuple(tensors)

    def build(self, tensors: Iterable[Tensor]) -> Any:
        """The value with these tensors in it."""
        remaining = iter(tensors)
        leaves = [next(remaining) if constant is Tensor else constant for constant in self.constants]
        return pytree.tree_unflatten(leaves, self.spec)

    def difference(self, expected: Tree) -> str:
        """The first difference from another structure, in words."""
        more, fewer = set(self.names) - set(expected.names), set(expected.names) - set(self.names)
        if more:
            return f"it hands over `{min(more)}`, which `example` does not"
        if fewer:
            return f"it does not hand over `{min(fewer)}`, which `example` does"
        values = [
            (mine, other) for mine, other in zip(self.constants, expected.constants, strict=False) if mine != other
        ]
        if values:
            return f"an argument is {values[0][0]!r} and was {values[0][1]!r}"
        return "its containers are of other kinds or sizes"


def _as_tensor(value: Tensor | np.ndarray[Any, Any]) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))


def _key(part: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)


def _register_dataclasses(value: Any) -> None:
    """Make dataclasses in `value` known to pytree, which takes them for leaves otherwise."""
    seen: list[Any] = [value]
    while seen:
        part = seen.pop()
        kind = type(part)
        if dataclasses.is_dataclass(part) and not isinstance(part, type) and kind not in pytree.SUPPORTED_NODES:
            _register(kind)
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            seen.extend(getattr(part, field.name) for field in dataclasses.fields(part))
        elif isinstance(part, Mapping):
            seen.extend(part.values())
        elif isinstance(part, (tuple, list)):
            seen.extend(part)


def _register(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]

    def flatten(value: Any) -> tuple[list[Any], Any]:
        return [getattr(value, name) for name in names], None

    def with_keys(value: Any) -> tuple[list[tuple[Any, Any]], Any]:
        return [(pytree.GetAttrKey(name), getattr(value, name)) for name in names], None

    def unflatten(values: Iterable[Any], context: Any) -> Any:
        value: Any = object.__new__(kind)  # not by its `__init__`, which may take other arguments or check them
        for name, part in zip(names, values, strict=True):
            object.__setattr__(value, name, part)
        return value

    pytree.register_pytree_node(kind, flatten, unflatten, flatten_with_keys_fn=with_keys)
