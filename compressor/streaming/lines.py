"""Calls of PyTorch's functions, told apart by the line of the model's code where they stand and how often it ran."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.overrides import TorchFunctionMode

from compressor.nn.own_code import running_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Key = tuple[str, int, int]
"""File and line, and how many calls there were before; of a layer that is run by other code its name, and 0."""


def written(func: Any, args: Sequence[Any], result: Any) -> Any:
    """What a call gives, or writes to: `h[mask] = x` gives nothing."""
    return args[0] if getattr(func, "__name__", "") == "__setitem__" else result


class Calls(TorchFunctionMode):
    """Numbers the calls within a `with`."""

    def __init__(self) -> None:
        """Nothing was called."""
        super().__init__()
        self._counts: dict[tuple[str, int], int] = {}
        self._outside = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Number one call."""
        kwargs = kwargs or {}
        place = None if self._outside else running_line()
        if place is None:
            return func(*args, **kwargs)
        return self.called(self._next(place), func, args, kwargs)

    @abstractmethod
    def called(self, key: Key, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the call gives."""

    @abstractmethod
    def given(self, key: Key, result: Any) -> None:
        """Take in what a layer gave."""

    @contextmanager
    def layer(self, name: str) -> Iterator[list[Any]]:
        """Within the block a layer runs, whose inner calls do not count; its result is put into the list."""
        self._outside += 1
        results: list[Any] = []
        try:
            yield results
        finally:
            self._outside -= 1
        for result in results:
            self.given(self._next((name, 0)), result)

    def _next(self, place: tuple[str, int]) -> Key:
        count = self._counts.get(place, 0)
        self._counts[place] = count + 1
        return (*place, count)
