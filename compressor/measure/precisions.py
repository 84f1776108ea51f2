"""A model in another precision than its own: in float64, as good as exact, or as a float16 file computes it."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence


_LARGEST_HALF = 65504.0
"""The largest finite half; a file holds no larger number, a mask of -1e9 for instance."""


def in_float64(model: nn.Module) -> Callable[..., Any]:
    """The model in float64, whatever dtypes its code names; called with the model's own inputs.

    Rows of tables that only `nn.Embedding` modules hold are looked up in float32 and then made double, which is exact:
    a table may be half of a model. Other operations that read such a table get it as double. A model that fails so,
    since it is not Python alone that reads a table, is copied whole.
    """
    return _InFloat64(model)


class _InFloat64:
    """See `in_float64`. Not a function in it that calls itself: the copy would stay until garbage is collected."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._tables = model, _tables(model)
        self._exact = _doubled(model, self._tables)

    def __call__(self, *inputs: Tensor) -> Any:
        doubles = [part.double() if part.dtype == torch.float32 else part for part in inputs]
        if self._tables:
            with contextlib.suppress(Exception):
                return self._run(*(part.clone() for part in doubles))
            self._tables = []
            self._exact = _doubled(self._model, [])
        return self._run(*doubles)

    def _run(self, *doubles: Tensor) -> Any:
        with _default_float64(), _Float64(self._tables):
            return self._exact(*doubles)


def _tables(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of float32 that only `nn.Embedding` modules hold; none if there are odd parameters."""
    if any(type(part) is not nn.Parameter for part in model.parameters()):
        return []
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
    return [
        part
        for part in _singles(model)
        if all(type(module) is nn.Embedding and module.max_norm is None for module in owners[id(part)])
    ]


def _doubled(model: nn.Module, tables: Sequence[nn.Parameter]) -> nn.Module:
    """A copy in float64, its tables those of the model itself."""
    kept = {id(part): part for part in tables}
    # In one step: a copy in float32 would take half as much again.
    made = {id(part): nn.Parameter(part.detach().double(), part.requires_grad) for part in _singles(model, but=kept)}
    if not kept:
        return copy.deepcopy(model, made).double()
    exact = copy.deepcopy(model, {**kept, **made})
    for module in exact.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.double() if buffer.is_floating_point() else buffer)
    return exact


def _singles(model: nn.Module, but: Container[int] = ()) -> Iterator[nn.Parameter]:
    """Parameters of float32 that are nothing but that."""
    for part in model.parameters():
        if type(part) is nn.Parameter and part.dtype == torch.float32 and id(part) not in but:
            yield part


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
    """Code that asks for float32 gets float64, and so does what reads `tables`, which are float32."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self._tables = {id(part) for part in tables}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        if func is nn.functional.embedding:
            rows = func(*args, **(kwargs or {}))
            return rows.double() if rows.dtype == torch.float32 else rows
        args, kwargs = pytree.tree_map(self._exact, (args, kwargs))
        return func(*args, **(kwargs or {}))

    def _exact(self, part: Any) -> Any:
        if part is torch.float32:
            return torch.float64
        if id(part) not in self._tables:
            return part
        return part.double().requires_grad_(part.requires_grad)  # by which PyTorch chooses how it multiplies


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


@contextlib.contextmanager
def _default_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
