"""What a run of a model on a whole sequence was computed from, call by call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compressor.nn.own_code import local_name
from compressor.streaming.lines import Calls, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from compressor.streaming.lines import Key

_ONLY_LIKE = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
"""Functions that take of a tensor the shape or type alone."""
_FIRST_COUNTS = {"expand_as", "type_as", "to", "view_as", "reshape_as"}
"""Functions that take the values of the first tensor alone."""


@dataclass(frozen=True)
class Source:
    """Where a tensor comes from."""

    key: Key
    leaf: int
    constant: bool
    """It does not depend on the model's inputs."""


@dataclass(frozen=True)
class Event:
    """One call: its function, and where the tensors among its arguments come from."""

    func: Any
    sources: Mapping[int, Source]
    labels: Mapping[int, str]


class Recorder(Calls):
    """Watches a run on a whole sequence."""

    def __init__(self, inputs: Iterable[Any]) -> None:
        """Of a model with these inputs."""
        super().__init__()
        self.events: dict[Key, Event] = {}
        self.values: dict[tuple[Key, int], Tensor] = {}
        self._sources: dict[int, Source] = {}
        self._alive: list[Any] = list(inputs)
        self._derived = {id(part) for part in self._alive}

    def called(self, key: Key, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run it and keep where its arguments come from."""
        leaves = tree_leaves((args, kwargs))
        tensors = {place: part for place, part in enumerate(leaves) if isinstance(part, Tensor)}
        sources = {place: source for place, part in tensors.items() if (source := self._sources.get(id(part)))}
        labels = {place: local_name(tensors[place]) for place in sources}
        result = func(*args, **kwargs)
        self.events[key] = Event(func, sources, labels)
        name = getattr(func, "__name__", "")
        counted = [] if name in _ONLY_LIKE else list(tensors.values())[: 1 if name in _FIRST_COUNTS else None]
        derived = any(id(part) in self._derived for part in counted)
        self._alive.append((leaves, result))
        self._note(key, written(func, args, result), derived)
        return result

    def given(self, key: Key, result: Any) -> None:
        """A layer's results depend on the inputs."""
        self._alive.append(result)
        self._note(key, result, derived=True)

    def _note(self, key: Key, result: Any, derived: bool) -> None:
        for leaf, part in enumerate(tree_leaves(result)):
            if isinstance(part, Tensor):
                if derived:
                    self._derived.add(id(part))
                self._sources[id(part)] = Source(key, leaf, not derived)
                self.values[key, leaf] = part if derived else part.clone()  # a later call may change it in place
