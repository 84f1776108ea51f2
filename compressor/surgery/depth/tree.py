"""Monte Carlo tree search for a chain, as in arXiv 2507.07996, but for one chain that serves all inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from compressor.surgery.depth.beam import evenly_spaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.surgery.depth.beam import Rules, Trials
    from compressor.surgery.depth.chains import Chain

_BLOCK = 4
"""Layers that an action skips or repeats at most, and how often it repeats them (section 3)."""
_RANDOM = 0.1
"""Probability of going to a random child that was not visited yet (section 3)."""
_EXPLORATION = math.sqrt(2.0)
"""c of UCB, which the paper does not give."""
_LENGTH_PENALTY = 0.1
"""Of a chain as long as the stack. The paper's 5.0 goes with rewards of right answers; here a budget bounds it."""
_MOST_IDLE = 50
"""Simulations without a chain that was not measured before, after which the search ends."""


@dataclass
class _Node:
    chain: Chain
    parent: _Node | None = None
    children: list[_Node] = field(default_factory=list)
    visits: int = 0
    reward: float = 0.0
    grown: bool = False


def tree_search(rules: Rules, trials: Trials, generator: torch.Generator) -> Chain:
    """The best chain found by simulations from the whole stack on.

    An action skips a block of 1 to 4 layers, or repeats it 1 to 4 times. A chain that is too long is shortened at
    random before it is measured; its reward is 1 / (1 + error).
    """
    root = _Node(rules.site.whole)
    best, idle = evenly_spaced(rules), 0
    known = {root.chain}
    while not trials.is_over and idle < _MOST_IDLE:
        node = root
        while node.grown and node.children:
            node = _chosen(node, rules, generator)
        if not node.grown and node.visits:
            _grow(node, rules, known)
        chain = _shortened(node.chain, rules, generator)
        before = len(trials.errors)
        reward = 0.0
        if chain is not None:
            error = trials.of(chain)
            reward = 1.0 / (1.0 + error)
            if best not in trials.errors or error < trials.errors[best]:
                best = chain
        idle = 0 if len(trials.errors) > before else idle + 1
        while node is not None:
            node.visits += 1
            node.reward += reward
            if node.parent is None:
                break
            node = node.parent
    return best


def _chosen(node: _Node, rules: Rules, generator: torch.Generator) -> _Node:
    fresh = [child for child in node.children if not child.visits]
    if fresh and (len(fresh) == len(node.children) or float(torch.rand((), generator=generator)) < _RANDOM):
        return fresh[int(torch.randint(len(fresh), (), generator=generator))]
    seen = [child for child in node.children if child.visits]
    return max(seen, key=lambda child: _bound(child, node, rules))


def _bound(child: _Node, node: _Node, rules: Rules) -> float:
    """UCB = Q / v + c sqrt(ln V / v) - lambda |P| / N."""
    exploration = _EXPLORATION * math.sqrt(math.log(max(node.visits, 1)) / child.visits)
    return child.reward / child.visits + exploration - _LENGTH_PENALTY * len(child.chain) / rules.site.count


def _grow(node: _Node, rules: Rules, known: set[Chain]) -> None:
    """Children for every action that gives a chain which is not in the tree yet and no longer than the stack."""
    node.grown = True
    for chain in _actions(node.chain):
        if len(chain) <= rules.site.count and chain not in known and rules.allow(chain):
            known.add(chain)
            node.children.append(_Node(chain, node))


def _actions(chain: Chain) -> Iterator[Chain]:
    for start in range(len(chain)):
        for size in range(1, min(_BLOCK, len(chain) - start) + 1):
            end = start + size
            if size < len(chain):
                yield (*chain[:start], *chain[end:])
            for times in range(1, _BLOCK + 1):
                yield (*chain[:end], *chain[start:end] * times, *chain[end:])


def _shortened(chain: Chain, rules: Rules, generator: torch.Generator) -> Chain | None:
    """Without random layers until it is short enough; None if that cannot be."""
    while len(chain) > rules.layers:
        options = [
            shorter for place in range(len(chain)) if rules.allow(shorter := (*chain[:place], *chain[place + 1 :]))
        ]
        if not options:
            return None
        chain = options[int(torch.randint(len(options), (), generator=generator))]
    return chain
