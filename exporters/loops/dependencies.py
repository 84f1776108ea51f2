"""What in the body of a loop depends on what, and what of it is read outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporters.loops.description import At, Other, Steps
from exporters.loops.operations import leaves
from exporters.loops.relations import Same

if TYPE_CHECKING:
    from exporters.loops.description import Program


class Dependencies:
    """Of the operations of one loop."""

    def __init__(self, program: Program, index: int) -> None:
        """Of loop `index`."""
        self.program, self.index = program, index
        self.body = program.loops[index]
        self.size = len(self.body.targets)
        self.reads = [[leaf for leaf in leaves(tree) if isinstance(leaf, Same)] for tree in self.body.arguments]
        """Operation -> the operations that it reads."""
        self.wanted = self._read_from_outside()
        """Operation -> how it is read outside the loop: `At` its one iteration, or "steps"."""
        self.dead = self._unread()
        """Operations on which no result depends that is read outside."""
        for place in self.dead:
            self.reads[place] = []
        self.components = self._components()
        """Strongly connected components of the body, each in order."""

    def only_last(self, place: int) -> bool:
        """Whether outside the loop at most the result of the last iteration is read."""
        return all(isinstance(leaf, At) and leaf.index == self.body.count.last for leaf in self.wanted.get(place, ()))

    def _components(self) -> list[list[int]]:
        reach = [0] * self.size  # bit masks of what each operation depends on
        for place, read in enumerate(self.reads):
            for leaf in read:
                reach[place] |= 1 << leaf.place
        changed = True
        while changed:
            changed = False
            for place in range(self.size):
                wider = reach[place]
                rest = wider
                while rest:
                    lowest = rest & -rest
                    wider |= reach[lowest.bit_length() - 1]
                    rest ^= lowest
                if wider != reach[place]:
                    reach[place], changed = wider, True
        components: list[list[int]] = []
        seen: set[int] = set()
        for place in range(self.size):
            if place not in seen:
                members = [
                    other
                    for other in range(self.size)
                    if other == place or (reach[place] >> other & 1 and reach[other] >> place & 1)
                ]
                seen.update(members)
                components.append(members)
        return components

    def _read_from_outside(self) -> dict[int, set[Any]]:
        wanted: dict[int, set[Any]] = {}

        def look(tree: Any) -> None:
            for leaf in leaves(tree):
                if isinstance(leaf, (At, Steps, Other)) and leaf.loop == self.index:
                    wanted.setdefault(leaf.place, set()).add(leaf if isinstance(leaf, At) else "steps")

        for node in self.program.nodes:
            look((node.args, node.kwargs))
        for loop in self.program.loops:
            look((loop.arguments, list(loop.initial.values())))
        look(self.program.outputs)
        return wanted

    def _unread(self) -> set[int]:
        live: set[int] = set()
        waiting = list(self.wanted)
        while waiting:
            place = waiting.pop()
            if place not in live:
                live.add(place)
                waiting += [leaf.place for leaf in self.reads[place]]
        return set(range(self.size)) - live
