"""The last states of a recurrent layer whose parts have different sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, overload

import torch
from torch import Tensor
from torch.utils import _pytree


class UnevenStatesError(AttributeError):
    """A model treats states of different sizes as one tensor."""


class States(Sequence[Tensor]):
    """One tensor (B, H_i) for each layer and direction, in the order of the first axis of `h_n` (L * D, B, H).

    It is read as `h_n` is: `h_n[-1]`, `h_n[-2:]`, `h_n[-1, :, 0]`, `for h in h_n`, `len(h_n)`. It is no tuple or list
    on purpose: models tell the `(h_n, c_n)` of an LSTM by `isinstance(states, tuple)`.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        """Keep the parts; no copy is made."""
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._parts)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> States: ...
    @overload
    def __getitem__(self, index: tuple[Any, ...]) -> Tensor | States: ...
    def __getitem__(self, index: int | slice | tuple[Any, ...]) -> Tensor | States:
        if isinstance(index, tuple):
            chosen = self[index[0]]
            rest = index[1:]
            return chosen[rest] if isinstance(chosen, Tensor) else chosen._each(lambda part: part[rest])
        return States(self._parts[index]) if isinstance(index, slice) else self._parts[index]

    def detach(self) -> States:
        """The same states outside the autograd graph, as for truncated back-propagation."""
        return self._each(lambda part: part.detach())

    def to(self, *args: Any, **kwargs: Any) -> States:
        """`Tensor.to` on every part."""
        return self._each(lambda part: part.to(*args, **kwargs))

    def _each(self, function: Callable[[Tensor], Tensor]) -> States:
        return States([function(part) for part in self._parts])

    def __getattr__(self, name: str) -> NoReturn:
        """Say what to do instead if a model treats the states as one tensor."""
        if name.startswith("_"):
            raise AttributeError(name)
        sizes = ", ".join(str(part.shape[-1]) for part in self._parts)
        raise UnevenStatesError(
            f"the last states have no `{name}`: layers and directions have different sizes ({sizes}), so they are "
            "not one tensor; index them as in `h_n[-1]`"
        )

    def __repr__(self) -> str:
        return f"States({list(self._parts)!r})"


def stack_states(parts: Sequence[Tensor]) -> Tensor | States:
    """Last states (1, ..., H_i), one for each part, as a model reads them: (L * D, ..., H) if all H_i are equal."""
    if len({part.shape[-1] for part in parts}) == 1:
        return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    return States([part.squeeze(0) for part in parts])


def _flatten(states: States) -> tuple[list[Tensor], None]:
    return list(states), None


def _unflatten(parts: Any, _: None) -> States:
    return States(list(parts))


# Tools that look for the tensors in a model's inputs and outputs (torch.func, torch.export) find the parts.
_pytree.register_pytree_node(States, _flatten, _unflatten, serialized_type_name="compressor.nn.recurrent.states.States")
