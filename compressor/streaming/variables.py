"""States that `forward` keeps in variables: `h = zeros(...)`, and in a loop over the positions `h = tanh(w(x) + u(h))`.

They are found by running whole sequences of two lengths: what a call is given in the first round of a loop is a
constant, and in every later one what a call of the round before gave. Where each call stands is told by its line and by
how often that line ran, which grows evenly with the number of positions. A step gives the constant's place the state,
and takes the new one from the call that gave it. Whoever uses a step compares it with the whole model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from compressor.streaming.lines import Calls, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from compressor.streaming.lines import Key
    from compressor.streaming.recorded import Recorder, Source

_SHORTEST = 3
"""Rounds that it takes to see what a loop hands on."""
_MOST_CALLS = 64
"""Calls of one line in a round of a loop."""


@dataclass(frozen=True)
class Spot:
    """One tensor in a call whose number grows evenly with the positions."""

    file: str
    line: int
    first: int
    """The number of the call if there is one position."""
    per_position: int
    leaf: int
    """Which tensor among the results, or which of the arguments."""

    def key(self, positions: int, more: int = 0) -> Key:
        """The call at so many positions."""
        return (self.file, self.line, self.first + self.per_position * (positions - 1) + more)


@dataclass(frozen=True)
class Variable:
    """One state."""

    label: str
    """The variable's name in the code if it has one."""
    initial: Tensor
    """(1, ...)."""
    start: Spot | None
    """The call that gives the constant; None if it starts several states, which then differ in `uses`."""
    uses: tuple[Spot, ...]
    """Arguments of calls in the first round."""
    end: Spot
    """The call in the first round that gives the next value."""
    stride: int
    """How many calls later `end` is in the next round."""

    def end_key(self, positions: int) -> Key:
        """The call that gives the value behind so many positions."""
        return self.end.key(positions, self.stride * (positions - 1))


@dataclass(frozen=True)
class _Chain:
    """One argument that is a constant in the first round and comes from the round before in all others."""

    start: Source
    use: tuple[Key, int]
    end: Source
    stride: int
    label: str

    def place(self) -> tuple[Any, ...]:
        """The same in runs of any length."""
        return (self.start.key[:2], self.start.leaf, self.use[0][:2], self.use[1], self.end.key[:2], self.end.leaf)


class Replay(Calls):
    """Runs a step: constants give way to states, and the new states are kept."""

    def __init__(self, variables: Sequence[Variable], states: Sequence[Tensor], positions: int) -> None:
        """For a step of so many positions."""
        super().__init__()
        self.new: dict[int, Tensor] = {}
        self._starts: dict[Key, tuple[int, Tensor]] = {}
        self._uses: dict[Key, dict[int, Tensor]] = {}
        self._ends: dict[Key, list[tuple[int, int]]] = {}
        for index, (variable, state) in enumerate(zip(variables, states, strict=True)):
            if variable.start is not None:
                self._starts[variable.start.key(positions)] = (variable.start.leaf, state)
            else:
                for use in variable.uses:
                    self._uses.setdefault(use.key(positions), {})[use.leaf] = state
            self._ends.setdefault(variable.end_key(positions), []).append((variable.end.leaf, index))

    def called(self, key: Key, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run it with the states in their places."""
        if key in self._uses:
            leaves, form = tree_flatten((args, kwargs))
            for place, state in self._uses[key].items():
                leaves[place] = state
            args, kwargs = tree_unflatten(leaves, form)
        result = func(*args, **kwargs)
        if key in self._starts:
            leaves, form = tree_flatten(result)
            place, state = self._starts[key]
            leaves[place] = state.clone()
            result = tree_unflatten(leaves, form)
        self.given(key, written(func, args, result))
        return result

    def given(self, key: Key, result: Any) -> None:
        """Keep new states."""
        for leaf, index in self._ends.get(key, ()):
            self.new[index] = tree_leaves(result)[leaf]


def find_variables(runs: Sequence[Recorder], lengths: tuple[int, int], batch: int) -> tuple[Variable, ...]:
    """The states in variables that two runs tell of; none if the lengths are the same, or too short for a loop.

    Args:
        runs: Of two lengths.
        lengths: The lengths.
        batch: Samples in both.
    """
    if lengths[0] == lengths[1] or min(lengths) < _SHORTEST:
        return ()
    first, second = (list(_chains(run, length)) for run, length in zip(runs, lengths, strict=True))
    if [chain.place() for chain in first] != [chain.place() for chain in second]:
        return ()
    grouped: dict[tuple[Source, Source], list[tuple[_Chain, _Chain]]] = {}
    for pair in zip(first, second, strict=True):
        grouped.setdefault((pair[0].start, pair[0].end), []).append(pair)
    starts = [start for start, _ in grouped]
    variables = []
    for (start, end), pairs in grouped.items():
        other = pairs[0][1].start
        if runs[0].values[start.key, start.leaf].shape != runs[1].values[other.key, other.leaf].shape:
            continue  # a place for the outputs of all positions
        initial = _initial(runs[0].values[start.key, start.leaf], runs[0].values[end.key, end.leaf], batch)
        if initial is not None:
            variables.append(_variable(pairs, lengths, initial, alone=starts.count(start) == 1))
    return tuple(variables)


def _initial(constant: Tensor, later: Tensor, batch: int) -> Tensor | None:
    """The value (1, ...) before the first position; None if it is no state of its own for each sample."""
    fits = later.dim() and later.size(0) == batch and constant.dtype == later.dtype and constant.dim() <= later.dim()
    pairs = zip(reversed(constant.shape), reversed(later.shape), strict=False)
    if not fits or any(size not in (1, wanted) for size, wanted in pairs):
        return None
    value = constant.expand(later.shape)
    return value[:1].clone() if torch.equal(value, value[:1].expand(later.shape)) else None


def _variable(
    pairs: Sequence[tuple[_Chain, _Chain]], lengths: tuple[int, int], initial: Tensor, *, alone: bool
) -> Variable:
    """One state; `alone`: its constant starts no other one."""
    one, other = pairs[0]
    return Variable(
        label=next((one.label for one, _ in pairs if one.label), "state"),
        initial=initial,
        start=_spot((one.start.key, other.start.key), lengths, one.start.leaf) if alone else None,
        uses=tuple(_spot((one.use[0], other.use[0]), lengths, one.use[1]) for one, other in pairs),
        end=_spot((one.end.key, other.end.key), lengths, one.end.leaf),
        stride=one.stride,
    )


def _spot(keys: tuple[Key, Key], lengths: tuple[int, int], leaf: int) -> Spot:
    (file, line, count), (_, _, more) = keys
    per_position = (more - count) // (lengths[1] - lengths[0])
    return Spot(file, line, count - per_position * (lengths[0] - 1), per_position, leaf)


def _chains(run: Recorder, length: int) -> Iterator[_Chain]:
    """All arguments of a run that may be states."""
    for key, event in run.events.items():
        for place, source in event.sources.items():
            if source.constant and (chain := _chain(run, key, place, source, length)) is not None:
                yield chain


def _chain(run: Recorder, key: Key, place: int, start: Source, length: int) -> _Chain | None:
    """The argument in the following rounds, if each round gives it to the next; rounds of all sizes are tried."""
    for calls in range(1, _MOST_CALLS):
        if (*key[:2], key[2] + calls * (length - 1)) not in run.events:
            return None
        rounds = [_source(run, key, place, calls * position) for position in range(1, length + 1)]
        ends = [source for source in rounds[:-1] if source is not None and not source.constant]
        if len(ends) < length - 1:
            continue
        stride = ends[1].key[2] - ends[0].key[2]
        handed = [replace(ends[0], key=(*ends[0].key[:2], ends[0].key[2] + stride * i)) for i in range(length)]
        if stride < 1 or handed[:-1] != ends or (handed[-1].key, handed[-1].leaf) not in run.values:
            continue
        if start.key == (*ends[0].key[:2], ends[0].key[2] - stride):
            continue  # the same round gives it: in the first one it is computed from a constant
        if rounds[-1] != handed[-1]:  # it would go on if what is taken for a round were a part of one
            return _Chain(start, (key, place), ends[0], stride, _label(run, key, place, calls))
    return None


def _source(run: Recorder, key: Key, place: int, later: int) -> Source | None:
    """Where the argument of a later call of the same line and function comes from."""
    event = run.events.get((*key[:2], key[2] + later))
    return None if event is None or event.func != run.events[key].func else event.sources.get(place)


def _label(run: Recorder, key: Key, place: int, calls: int) -> str:
    return run.events[*key[:2], key[2] + calls].labels.get(place, "")
