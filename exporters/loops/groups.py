"""What each `Scan` of a loop computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from exporters.loops.description import Affine, Iteration, Other
from exporters.loops.kinds import Kind
from exporters.loops.operations import leaves
from exporters.loops.refusal import NotRolledError
from exporters.loops.relations import Same

if TYPE_CHECKING:
    from exporters.loops.dependencies import Dependencies
    from exporters.loops.description import Body

_SELECT = torch.ops.aten.select.int


@dataclass
class Group:
    """What one `Scan` computes: operations of a body, in order."""

    places: list[int]
    states: list[tuple[int, int]] = field(default_factory=list)
    """Operation and lag of the earlier results that are read."""
    steps: list[Any] = field(default_factory=list)
    """What changes from iteration to iteration and comes from outside."""
    outputs: list[int] = field(default_factory=list)
    """Operations of which more than the last results are read."""


def groups(dependencies: Dependencies, kinds: list[Kind], *, padded: bool) -> dict[int, Group]:
    """By operation, one group for all operations between which nothing is computed outside a `Scan`.

    Args:
        dependencies: Of a loop.
        kinds: Of its operations.
        padded: There may be no iteration at all.

    Raises:
        NotRolledError: An operation takes the number of the step where a constant has to be.
    """
    level = _levels(dependencies, kinds)
    by_operation: dict[int, Group] = {}
    for number in sorted(set(level)):
        places = [place for place, kind in enumerate(kinds) if kind is Kind.SCAN and level[place] == number]
        if places:
            by_operation.update(dict.fromkeys(places, _group(dependencies, places, padded)))
    return by_operation


def _levels(dependencies: Dependencies, kinds: list[Kind]) -> list[int]:
    """How often results leave a `Scan` on the way to each operation."""
    level = [0] * dependencies.size
    changed = True
    while changed:
        changed = False
        for members in dependencies.components:
            best = 0
            for place in members:
                for leaf in dependencies.reads[place]:
                    if leaf.place not in members:
                        leaves_scan = kinds[leaf.place] is Kind.SCAN and kinds[place] is not Kind.SCAN
                        best = max(best, level[leaf.place] + leaves_scan)
            for place in members:
                if level[place] < best:
                    level[place], changed = best, True
    return level


def _group(dependencies: Dependencies, places: list[int], padded: bool) -> Group:
    body, group = dependencies.body, Group(places)
    lags: dict[int, int] = {}
    for place in places:
        for leaf in leaves(body.arguments[place]):
            if isinstance(leaf, Same) and leaf.place in places:
                if leaf.lag:
                    lags[leaf.place] = max(lags.get(leaf.place, 0), leaf.lag)
            elif isinstance(leaf, (Same, Other, Iteration)) and leaf not in group.steps:
                group.steps.append(leaf)
        _refuse_unfit(body, place)
    group.states = [(place, lag) for place, most in sorted(lags.items()) for lag in range(1, most + 1)]
    for place in places:
        inside = any(
            leaf.place == place for other, read in enumerate(dependencies.reads) if other not in places for leaf in read
        )
        by_state = dependencies.only_last(place) and (place, 1) in group.states and not padded
        if inside or (place in dependencies.wanted and not by_state):
            group.outputs.append(place)
    if not group.steps:
        group.steps.append(Iteration(1, Affine(0, 0)))
    return group


def _refuse_unfit(body: Body, place: int) -> None:
    """The number of the step may go where a tensor does, and nowhere else."""
    target, (args, kwargs) = body.targets[place], body.arguments[place]
    code = body.codes[place]
    if any(isinstance(leaf, Iteration) for leaf in leaves((args, kwargs))):
        schema = getattr(target, "_schema", None)
        for position, leaf in enumerate(args):
            tensor = schema is not None and str(schema.arguments[position].type) == "Tensor"
            chosen = target is _SELECT and position == 2
            if any(isinstance(part, Iteration) for part in leaves(leaf)) and not (
                isinstance(leaf, Iteration) and (tensor or chosen)
            ):
                raise grown(code)


def grown(code: str) -> NotRolledError:
    """The refusal of an operation that is not the same at every step."""
    where = f" at `{code}`" if code else ""
    return NotRolledError(
        f"what is computed{where} has another size or another setting at every step",
        "give every step tensors of one size: a mask over all positions instead of `x[:, :t]`",
    )
