"""How each operation in the body of a loop is computed for all iterations.

The body falls into strongly connected components, whose results go into a later iteration of themselves, and is split
between them:

- `ACCESS`: step i of a tensor, which is the tensor itself;
- `WRITE`: writing step i into a tensor, or joining it to one, that nothing else reads meanwhile: the stacked steps;
- `VECTOR`: no feedback, and a rule for all steps at once (`vectorized`);
- `CELL`: a recurrent cell of PyTorch with constant weights, which is a native node;
- `SCAN`: all else, as few `Scan` nodes as the order allows;
- `DEAD`: what nothing reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.loops.dependencies import Dependencies
from exporters.loops.groups import Group, groups, grown
from exporters.loops.kinds import Kind, Kinds

if TYPE_CHECKING:
    from exporters.loops.description import Body, Program


@dataclass
class Plan:
    """Of one loop."""

    body: Body
    kinds: list[Kind]
    groups: dict[int, Group]
    """By operation."""
    padded: bool
    """There may be no iteration at all: one more is computed than there are, since neither nodes nor `Scan` take 0."""


def plan(program: Program, min_length: int) -> list[Plan]:
    """The plans of all loops of a program.

    Raises:
        NotRolledError: A loop does what none of these ways allows.
    """
    return [_plan(Dependencies(program, index), min_length) for index in range(len(program.loops))]


def _plan(dependencies: Dependencies, min_length: int) -> Plan:
    body = dependencies.body
    padded = bool(body.count.at(min_length) < 1)
    kinds = Kinds(dependencies, padded=padded).choose()
    for place, kind in enumerate(kinds):
        if body.growing[place] and kind not in (Kind.WRITE, Kind.DEAD):
            raise grown(body.codes[place])
    return Plan(body, kinds, groups(dependencies, kinds, padded=padded), padded)
