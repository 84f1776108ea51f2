"""A model in another precision than its own: in float64, as good as exact, or as a float16 file computes it."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_LARGEST_HALF = 65504.0
"""The largest finite half; a file holds no larger number, a mask of -1e9 for instance."""


def in_float64(model: nn.Module) -> Callable[..., Any]:
    """The model in float64, whatever dtypes its code names; called with the model's own inputs."""
    # In one step: a copy in float32 would take half as much again.
    doubled = {id(part): nn.Parameter(part.detach().double(), part.requires_grad) for part in _singles(model)}
    exact = copy.deepcopy(model, doubled).double()

    def forward(*inputs: Tensor) -> Any:
        with _default_float64(), _Float64():
            return exact(*(part.double() if part.dtype == torch.float32 else part for part in inputs))

    return forward


def _singles(model: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of float32 that are nothing but that."""
    return (part for part in model.parameters() if type(part) is nn.Parameter and part.dtype == torch.float32)


def in_float16(model: nn.Module) -> Callable[..., Any]:
    """The model with weights, inputs and all results rounded to halves; a recurrent layer computes in float32 inside.

    This is what a file of `precision: float16` computes, and it runs wherever the model itself does.
    """
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for weight in (*rounded.parameters(), *rounded.buffers()):
            _round(weight)

    def forward(*inputs: Tensor) -> Any:
        copies = [part.clone() for part in inputs]
        for part in copies:
            _round(part)
        with _Float16():
            return rounded(*copies)

    return forward


class _Float64(TorchFunctionMode):
    """Code that asks for float32 gets float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args, kwargs = pytree.tree_map(lambda part: torch.float64 if part is torch.float32 else part, (args, kwargs))
        return func(*args, **(kwargs or {}))


class _Float16(TorchFunctionMode):
    """Results are rounded to halves, and stay float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_memory(part) for part in pytree.tree_leaves((args, kwargs)) if isinstance(part, Tensor)}
        for part in pytree.tree_leaves(result):
            if isinstance(part, Tensor) and _memory(part) not in given:  # a view shows what is rounded already
                _round(part)
        return result


def _memory(part: Tensor) -> int:
    return part.untyped_storage().data_ptr()


def _round(part: Tensor) -> None:
    """Round a tensor of float32 in place, finite numbers to finite halves."""
    if part.dtype == torch.float32:
        finite = part.clamp(-_LARGEST_HALF, _LARGEST_HALF)
        part.copy_(torch.where(part.isfinite(), finite, part).half())


@contextmanager
def _default_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
