"""Beam search for a chain: layers go one by one, the best few chains of each length go on, then they are refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from compressor.surgery.depth.chains import Chain, Site


@dataclass(frozen=True)
class Rules:
    """Which chains are looked at."""

    site: Site
    layers: int
    """Most layers of the result."""
    repeats: bool
    """A layer may run more than once."""
    reorders: bool
    """A layer may run before one that it came after."""

    def allow(self, chain: Chain) -> bool:
        """Whether a chain is one of them, whatever its length."""
        if not self.site.allows(chain):
            return False
        if not self.repeats and len(set(chain)) < len(chain):
            return False
        return self.reorders or list(chain) == sorted(chain)


class Trials:
    """The errors of chains, each measured once; a search ends when it has used up its number of trials."""

    def __init__(self, error: Callable[[Chain], float], most: int, advance: Callable[[], None]) -> None:
        """Nothing is measured yet.

        Args:
            error: Of a chain; smaller is better.
            most: Number of chains that are measured at most.
            advance: Called after each.
        """
        self._error, self._most, self._advance = error, most, advance
        self.errors: dict[Chain, float] = {}

    @property
    def is_over(self) -> bool:
        """Whether all trials are used up."""
        return len(self.errors) >= self._most

    def of(self, chain: Chain) -> float:
        """The error of a chain."""
        if chain not in self.errors:
            self.errors[chain] = self._error(chain)
            self._advance()
        return self.errors[chain]

    def best(self, chains: Iterable[Chain], count: int) -> list[Chain]:
        """The best of these, in order; those that are left when all trials are used up do not count."""
        known = []
        for chain in dict.fromkeys(chains):
            if chain in self.errors or not self.is_over:
                self.of(chain)
                known.append(chain)
        return sorted(known, key=lambda chain: (self.errors[chain], len(chain), chain))[:count]


def beam_search(rules: Rules, trials: Trials, width: int) -> Chain:
    """The best chain found: shortened layer by layer, then with single layers exchanged and neighbours swapped.

    Args:
        rules: What is looked for.
        trials: What measures.
        width: Chains that go on from each length.
    """
    frontier: list[Chain] = [rules.site.whole]
    while len(frontier[0]) > rules.layers:
        shorter = [part for chain in frontier for part in _without_one(chain) if rules.allow(part)]
        frontier = trials.best(shorter, width) or [evenly_spaced(rules)]
    pool = frontier
    looked: set[Chain] = set()
    while not trials.is_over:
        fresh = [chain for chain in pool if chain not in looked]
        if not fresh:
            break
        looked |= set(fresh)
        near = [other for chain in fresh for other in _near(chain, rules)]
        pool = trials.best([*pool, *near], width)
    best = trials.best(pool, 1)
    return best[0] if best else evenly_spaced(rules)


def evenly_spaced(rules: Rules) -> Chain:
    """The chain that no search is needed for: layers at equal distances, the first and the last among them."""
    count, layers = rules.site.count, rules.layers
    if layers == 1:
        return (0,)
    return tuple(round(place * (count - 1) / (layers - 1)) for place in range(layers))


def _without_one(chain: Chain) -> Iterator[Chain]:
    for place in range(len(chain)):
        yield (*chain[:place], *chain[place + 1 :])


def _near(chain: Chain, rules: Rules) -> Iterator[Chain]:
    """Chains of the same length that differ in one layer, or in the order of two neighbours."""
    options: Sequence[int] = rules.site.whole
    for place in range(len(chain)):
        for number in options:
            other = (*chain[:place], number, *chain[place + 1 :])
            if other != chain and rules.allow(other):
                yield other
    for place in range(len(chain) - 1):
        other = (*chain[:place], chain[place + 1], chain[place], *chain[place + 2 :])
        if other != chain and rules.allow(other):
            yield other
