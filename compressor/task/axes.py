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
"""Names of the axes that the tool varies."""


@dataclass(frozen=True)
class Sized:
    """Shapes of tensors at one batch size and one length."""

    batch: int
    length: int
    shapes: Shapes


@dataclass(frozen=True)
class Observed:
    """The shapes of one side of the model: at a first size, at another batch size, at another length."""

    names: Sequence[str]
    first: Sized
    batch: Sized
    length: Sized | None
    """None if the task has one length only."""

    def moving(self, index: int) -> dict[int, set[str]]:
        """Axis of tensor `index` -> which of `batch` and `time` its size follows.

        Raises:
            TaskError: The tensor has another number of axes at another size.
        """
        moves: dict[int, set[str]] = {}
        for word, other in ((BATCH, self.batch), (TIME, self.length)):
            if other is None:
                continue
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
        """`batch` or `time` for an axis of just that size, a name of its own for one of another size."""
        word = next(iter(words))
        other = self.batch if word == BATCH else self.length
        assert other is not None
        asked = [(size.batch if word == BATCH else size.length) for size in (self.first, other)]
        sizes = [size.shapes[index][axis] for size in (self.first, other)]
        plain = word == TIME or sizes == asked
        return word if len(words) == 1 and plain else f"{self.names[index]}_{axis}"


def check_declared(observed: Observed, declared: Axes, what: str) -> None:
    """Hold what the task says of its axes against what was seen.

    Raises:
        TaskError: An axis that is called `batch` or `time` does not follow it, or follows the other.
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
            if word not in (BATCH, TIME) or (word == TIME and observed.length is None):
                continue
            if moves.get(axis) != {word}:
                raise TaskError(_contradiction(observed, index, axis, word, what), hint=_remedy(moves, word))


def _contradiction(observed: Observed, index: int, axis: int, word: str, what: str) -> str:
    other = observed.batch if word == BATCH else observed.length
    assert other is not None
    name, (first, second) = observed.names[index], (observed.first, other)
    sizes = f"{first.batch} and {second.batch}" if word == BATCH else f"{first.length} and {second.length}"
    shapes = f"{first.shapes[index]} and {second.shapes[index]}"
    kind = "batch sizes" if word == BATCH else "lengths"
    return f"`{what}` calls axis {axis} of `{name}` `{word}`, but at {kind} {sizes} its shapes are {shapes}"


def _remedy(moves: Mapping[int, set[str]], word: str) -> str:
    right = [axis for axis, words in moves.items() if words == {word}]
    if right:
        return f"`{word}` is axis {right[0]}; or leave the declaration out: the tool finds the axes"
    argument = "first" if word == BATCH else "second"
    return f"let `example(batch, length)` follow its {argument} argument, or leave `{word}` out"
