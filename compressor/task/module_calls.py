"""Calls of a model's modules: seen while the model runs, and answered by functions in place of the modules."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.nn.hooks import hooked
from compressor.task.signature import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Seen = dict[str, list[tuple[Call, Any]]]
"""Name of a module -> its calls, with their results."""


class StandIn(nn.Module):
    """A function in place of a module: it can be called, and nothing else."""

    def __init__(self, call: Callable[..., Any]) -> None:
        """`call` answers."""
        super().__init__()
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the function answers."""
        return self.call(*args, **kwargs)


def with_stand_ins(model: nn.Module, calls: Mapping[str, Callable[..., Any]]) -> nn.Module:
    """A copy of the model with functions in place of modules; what they replace is not copied."""
    memo: dict[int, Any] = {id(model.get_submodule(path)): StandIn(call) for path, call in calls.items()}
    return copy.deepcopy(model, memo)


@contextmanager
def watched(model: nn.Module, paths: Mapping[str, str]) -> Iterator[Seen]:
    """Name -> every call of that module and its result, within the block."""
    seen: Seen = {name: [] for name in paths}

    def watch(name: str) -> Callable[..., None]:
        return lambda module, args, kwargs, result: seen[name].append((Call(*args, **kwargs), result))

    handles = (
        model.get_submodule(path).register_forward_hook(watch(name), with_kwargs=True) for name, path in paths.items()
    )
    with hooked(handles):
        yield seen
