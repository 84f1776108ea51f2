"""Partial orders of units: by reachability or by inclusion of extents (formal concept analysis).

Units that the relation does not tell apart form one class; the order is one of classes. In the reachability reading
classes are strongly connected components, in the closure reading sets of units with equal extents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from compressor.nn.lattice.bits import Bits, transitive_closure
from compressor.nn.lattice.tiles import row_slices

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Order:
    """A partial order of k classes of n units, each class with an extent that grows strictly with the order."""

    classes: Tensor
    """The class (n,) of each unit, 0..k-1, numbered by their first unit."""
    leq: Bits
    """(k, k): row x holds the y with x <= y."""
    extents: Bits
    """(k, m): x <= y if row x is a subset of row y; down-sets, or what the relation says of the units."""

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.leq)

    @property
    def largest(self) -> int:
        """Units in the largest class."""
        return int(self.classes.bincount().max())

    @cached_property
    def geq(self) -> Bits:
        """(k, k): row x is the principal down-set of x, the y with y <= x."""
        return self.leq.transpose()

    @cached_property
    def less(self) -> Bits:
        """(k, k): row x holds the y with x < y."""
        return self.leq & ~Bits.identity(self.count, self.leq.device)

    @cached_property
    def covers(self) -> Bits:
        """(k, k): row x holds its upper covers, the y with x < y and nothing strictly between; the Hasse diagram."""
        return self.less & ~(self.less @ self.less)

    @cached_property
    def heights(self) -> Tensor:
        """The number (k,) of steps in the longest chain that ends at each class; 0 for the minimal ones."""
        waiting = self.geq.counts() - 1  # (k,), classes below that have no height yet
        heights = torch.zeros_like(waiting)
        level, ready = 0, (waiting == 0).nonzero().flatten()
        while len(ready):
            heights[ready] = level
            waiting[ready] = -1
            for part in row_slices(len(ready), self.count, self.leq.device):
                waiting -= self.less.unpack(ready[part]).sum(0)
            level, ready = level + 1, (waiting == 0).nonzero().flatten()
        return heights

    @cached_property
    def irreducible(self) -> Tensor:
        r"""Which classes (k,) are meet-irreducible.

        Class x is so if its extent is not the intersection of all the extents strictly above it,

        .. math:: E_x \ne \bigcap_{y > x} E_y,

        the empty intersection being the whole set. With the extents of a closure reading that is irreducibility in the
        lattice of all intersections of extents (Ganter and Wille, Formal Concept Analysis, chapter 1); with
        principal down-sets it is irreducibility in the Dedekind-MacNeille completion (Davey and Priestley, chapter 7).
        Both times x has exactly one upper cover in the lattice.
        """
        outside = self.less @ ~self.extents  # (k, m), the complement of the intersection
        return (outside.words != (~self.extents).words).any(1)

    def meet(self, first: int, second: int) -> int | None:
        """The greatest lower bound of two classes within this order; None if there is none."""
        lower = self.geq.words[first] & self.geq.words[second]  # (words,)
        greatest = (self.geq.words == lower).all(1).nonzero().flatten()
        return int(greatest) if len(greatest) else None


def reachability_order(adjacency: Bits) -> Order:
    """Strongly connected components, x <= y if y is reached from x along edges j -> i, one for each A[i, j].

    Args:
        adjacency: A (n, n), row i = target, column j = source.

    Returns:
        An order whose extents are the principal down-sets.
    """
    preorder = transitive_closure(adjacency.transpose())
    classes, first = equivalence_classes(preorder)
    leq = preorder.select(first, first)
    return Order(classes, leq, leq.transpose())


def closure_order(adjacency: Bits) -> Order:
    """Formal concept analysis of the relation: i <= j if extent(i) is a subset of extent(j) = {i : A[i, j]}.

    Args:
        adjacency: A (m, n); its columns are the extents of n units.

    Returns:
        An order of the different extents, (k, m).
    """
    extents = adjacency.transpose()  # (n, m)
    preorder = ~(extents @ (~extents).transpose())  # (n, n)
    classes, first = equivalence_classes(preorder)
    every = torch.arange(extents.columns, device=extents.device)
    return Order(classes, preorder.select(first, first), extents.select(first, every))


def equivalence_classes(preorder: Bits) -> tuple[Tensor, Tensor]:
    """Elements that are below each other in a reflexive and transitive relation (n, n).

    Returns:
        The class (n,) of each element, and the first element (k,) of each class, ascending.
    """
    mutual = preorder & preorder.transpose()
    pieces = row_slices(len(mutual), mutual.columns, mutual.device)
    lowest = torch.cat([mutual.unpack(rows).to(torch.uint8).argmax(1) for rows in pieces])  # (n,), first of equal ones
    first, classes = lowest.unique(return_inverse=True)
    return classes, first


def degenerate(classes: Tensor, irreducible: Tensor) -> str | None:
    """Why an order cannot guide pruning, or None if it can.

    Args:
        classes: The class (n,) of each unit.
        irreducible: Which classes (k,) are meet-irreducible.
    """
    units, largest = len(classes), int(classes.bincount().max())
    if 10 * largest > 9 * units:
        return f"one class holds {largest} of {units} units, more than 90 %"
    if not bool(irreducible.any()):
        return f"none of the {len(irreducible)} classes is meet-irreducible"
    return None


def describe(classes: Tensor, irreducible: Tensor) -> str:
    """The facts of an order in one line, also if every class is irreducible; arguments as for `degenerate`."""
    count, kept = len(irreducible), int(irreducible.sum())
    share = "all" if kept == count else f"{kept}"
    largest = int(classes.bincount().max())
    return f"{len(classes)} units in {count} classes, the largest of {largest}; {share} meet-irreducible"
