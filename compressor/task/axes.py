"""Finds which axes of a model's inputs and outputs are open, by calling it at several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Shapes = Sequence[tuple[int, ...]]
    Axes = Mapping[str, Mapping[int, str]]

BATCH, TIME = "batch", "time"
"""Names of the axes that the tool varies in every task; a task may have further ones, see `Task.ranges`."""
_COUNTED = {BATCH: "batch sizes", TIME: "lengths"}
_ARGUMENTS = {BATCH: "its first argument", TIME: "its second argument"}


@dataclass(frozen=True)
class Sized:
    """Shapes of tensors at one size of every open axis."""

    sizes: Mapping[str, int]
    """`batch`, `time` and the name of each further axis -> its size."""
    shapes: Shapes


@dataclass(frozen=True)
class Observed:
    """The shapes of one side of the model: at first sizes, and with one of these sizes changed."""

    names: Sequence[str]
    first: Sized
    others: Mapping[str, Sized]
    """Which size was changed -> the shapes then; without `time` if the task has one length only."""

    def moving(self, index: int) -> dict[int, set[str]]:
        """Axis of tensor `index` -> which of the sizes its own follows.

        Raises:
            TaskError: The tensor has another number of axes at another size.
        """
        moves: dict[int, set[str]] = {}
        for word, other in self.others.items():
            shapes = self.first.shapes[index], other.shapes[index]
            if len(shapes[0]) != len(shapes[1]):
                raise TaskError(
                    f"`{self.names[index]}` has {len(shapes[0])} axes at one size and {len(shapes[1])} at another"
                )
            for axis, sizes in enumerate(zip(*shapes, strict=True)):
                if sizes[0] != sizes[1]:
                    moves.setdefault(axis, set()).add(word)
        return moves

    def axes(self, declared: Axes | None) -> dict[str, dict[int, str]]:
        """The open axes by name: what the task declares, and what moves beside it."""
        found: dict[str, dict[int, str]] = {}
        for index, name in enumerate(self.names):
            named = dict(declared[name]) if declared is not None else {}
            for axis, words in self.moving(index).items():
                named.setdefault(axis, self._word(index, axis, words))
            found[name] = dict(sorted(named.items()))
        return found

    def _word(self, index: int, axis: int, words: set[str]) -> str:
        """The size's own name for an axis of just that size, a name of the tensor's for one of another size."""
        word = next(iter(words))
        asked = [sized.sizes[word] for sized in (self.first, self.others[word])]
        sizes = [sized.shapes[index][axis] for sized in (self.first, self.others[word])]
        plain = word == TIME or sizes == asked
        return word if len(words) == 1 and plain else f"{self.names[index]}_{axis}"


def check_declared(observed: Observed, declared: Axes, what: str) -> None:
    """Hold what the task says of its axes against what was seen.

    Raises:
        TaskError: An axis that is called `batch`, `time` or as one of `ranges` does not follow it, or follows another.
    """
    for index, name in enumerate(observed.names):
        rank = len(observed.first.shapes[index])
        moves = observed.moving(index)
        for axis, word in declared[name].items():
            if not 0 <= axis < rank:
                raise TaskError(
                    f"`{what}` names axis {axis} of `{name}`, which has {rank} axes: {observed.first.shapes[index]}",
                    hint="axes count from 0",
                )
            if word in observed.others and moves.get(axis) != {word}:
                raise TaskError(_contradiction(observed, index, axis, word, what), hint=_remedy(moves, word))


def _contradiction(observed: Observed, index: int, axis: int, word: str, what: str) -> str:
    name, (first, second) = observed.names[index], (observed.first, observed.others[word])
    sizes = f"{first.sizes[word]} and {second.sizes[word]}"
    shapes = f"{first.shapes[index]} and {second.shapes[index]}"
    counted = _COUNTED.get(word, f"sizes of `{word}`")
    return f"`{what}` calls axis {axis} of `{name}` `{word}`, but at {counted} {sizes} its shapes are {shapes}"


def _remedy(moves: Mapping[int, set[str]], word: str) -> str:
    right = [axis for axis, words in moves.items() if words == {word}]
    if right:
        return f"`{word}` is axis {right[0]}; or leave the declaration out: the tool finds the axes"
    return f"let `example(batch, length)` follow {_ARGUMENTS.get(word, f'`{word}`')}, or leave `{word}` out"
