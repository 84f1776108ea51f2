"""Which positions of which parameters belong together.

An **atom** is one position along one axis of a parameter (row 3 of a Linear's weight), or one hidden unit. Atoms that
must be removed together are joined; an atom that cannot be removed is pinned, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Role = Literal["read", "in", "out"]
"""`out`: the position is a feature that this parameter produces; `in`: one that it consumes; `read`: the parameter was
looked at along this axis, and no operation has told yet which of both it is. Later ones in this order win: of a tied
table, whose columns are produced by the embedding and consumed by the output layer, the columns are produced."""
_ORDER: tuple[Role, ...] = get_args(Role)


@dataclass
class Atoms:
    """Union-find over atoms; 0 is no atom."""

    axes: dict[tuple[str, int], Ids] = field(default_factory=dict)
    """(parameter name, axis) -> the atom of every position along it; several positions may share one (gate blocks)."""
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    _parents: Ids = field(default_factory=lambda: np.zeros(1, np.int64))
    _count: int = 1
    _pins: dict[int, str] = field(default_factory=dict)
    _constants: set[int] = field(default_factory=set)

    @property
    def count(self) -> int:
        """One more than the largest atom."""
        return self._count

    def new(self, count: int) -> Ids:
        """`count` fresh atoms."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._parents):
            grown = np.arange(max(self._count, 2 * len(self._parents)), dtype=np.int64)
            grown[:first] = self._parents[:first]
            self._parents = grown
        return np.arange(first, self._count, dtype=np.int64)

    def new_constants(self, count: int) -> Ids:
        """Fresh atoms of a constant, which represent a group only if it has no others."""
        atoms = self.new(count)
        self._constants.update(atoms.tolist())
        return atoms

    def axis(self, name: str, axis: int, size: int, role: Role) -> Ids:
        """The atoms along one axis of a parameter, made on first use."""
        key = (name, axis)
        self.bind(name, axis, self.axes[key] if key in self.axes else self.new(size), role)
        return self.axes[key]

    def bind(self, name: str, axis: int, ids: Ids, role: Role) -> None:
        """Say which atoms an axis of a parameter carries, and in which role."""
        self.axes[name, axis] = ids
        self.roles[name, axis] = max(self.roles.get((name, axis), role), role, key=_ORDER.index)

    def join(self, left: Ids, right: Ids) -> None:
        """Join atoms pairwise; pairs with a 0 are passed over."""
        left, right = (part.ravel() for part in np.broadcast_arrays(left, right))
        joined = (left != 0) & (right != 0) & (left != right)
        # One number for each pair: to find unique rows of two takes several times as long.
        for pair in np.unique(left[joined] * self._count + right[joined]).tolist():
            self._join(*divmod(pair, self._count))

    def pin(self, ids: Ids, reason: str) -> None:
        """These atoms stay; the first reason is the one that is told."""
        for atom in np.unique(ids).tolist():
            if atom:
                self._pins.setdefault(atom, reason)

    def roots(self, ids: Ids) -> Ids:
        """The representative of each atom's group."""
        result = self._parents[ids]
        while not np.array_equal(following := self._parents[result], result):
            result = following
        return result

    def reasons(self) -> dict[int, str]:
        """Representative -> why its group stays, for every pinned group."""
        reasons: dict[int, str] = {}
        for atom, reason in self._pins.items():
            reasons.setdefault(self._find(atom), reason)
        return reasons

    def _find(self, atom: int) -> int:
        parents = self._parents
        root = atom
        while parents[root] != root:
            root = int(parents[root])
        while parents[atom] != root:
            parents[atom], atom = root, int(parents[atom])
        return root

    def _join(self, a: int, b: int) -> None:
        a, b = self._find(a), self._find(b)
        if a != b:
            first, second = sorted((a, b), key=lambda atom: (atom in self._constants, atom))
            self._parents[second] = first
