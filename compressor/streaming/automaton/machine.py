"""Finite machines with an output at each state: made of clusters, minimised, and run on strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Machine:
    """State 0 is the start."""

    table: Tensor
    """The next state for each state and symbol (S, V)."""
    outputs: Tensor
    """(S, C)."""
    counts: Tensor
    """How often each state was seen (S,)."""

    def run(self, strings: Tensor) -> Tensor:
        """The state after each symbol (B, T) of strings (B, T)."""
        state = torch.zeros(len(strings), dtype=torch.int64)
        states = []
        for symbols in strings.T:
            state = self.table[state, symbols]
            states.append(state)
        return torch.stack(states, 1)

    def minimal(self) -> Machine:
        """The smallest machine that decides the same for every string (Moore, 1956), without states never reached.

        States are numbered as they are first reached, symbols in order. The outputs of merged states are their mean,
        weighted by how often each was seen.
        """
        blocks = torch.unique(decided(self.outputs), return_inverse=True)[1]
        while True:
            finer = torch.unique(torch.cat([blocks[:, None], blocks[self.table]], 1), dim=0, return_inverse=True)[1]
            if int(finer.max()) == int(blocks.max()):
                break
            blocks = finer
        merged = int(blocks.max()) + 1
        member = torch.zeros(merged, dtype=torch.int64).index_copy_(0, blocks, torch.arange(len(blocks)))
        table = blocks[self.table[member]]  # (S', V)
        weights = self.counts.to(self.outputs.dtype).clamp(min=1e-6)
        sums = torch.zeros(merged, self.outputs.shape[1], dtype=self.outputs.dtype)
        sums.index_add_(0, blocks, self.outputs * weights[:, None])
        total = torch.zeros(merged, dtype=self.outputs.dtype).index_add_(0, blocks, weights)
        order = _reached(table, _start(table, int(blocks[0]), seen=bool(self.counts[0])))
        place = torch.full((merged,), -1).index_copy_(0, order, torch.arange(len(order)))
        counts = torch.zeros(merged, dtype=self.counts.dtype).index_add_(0, blocks, self.counts)
        return Machine(place[table[order]], (sums / total[:, None])[order], counts[order])

    def classes(self) -> tuple[list[int], Tensor]:
        """The class of each symbol, symbols that act alike in one; and the table of the classes (S, K)."""
        columns, inverse = torch.unique(self.table, dim=1, return_inverse=True)
        firsts = {int(group): place for place, group in reversed(list(enumerate(inverse.tolist())))}
        order = sorted(firsts, key=lambda group: firsts[group])
        place = {group: number for number, group in enumerate(order)}
        return [place[group] for group in inverse.tolist()], columns[:, order]


def decided(outputs: Tensor) -> Tensor:
    """What outputs (..., C) decide: the largest of several scores, or whether a single one is above 0."""
    return outputs.argmax(-1) if outputs.shape[-1] > 1 else (outputs[..., 0] > 0).long()


def _start(table: Tensor, start: int, *, seen: bool) -> int:
    """The start, or if nothing leads back to it a state that goes on alike: its own output is never asked for."""
    alike = (table == table[start]).all(1).nonzero().flatten().tolist()
    others = [state for state in alike if state != start]
    return others[0] if others and not seen and not bool((table == start).any()) else start


def _reached(table: Tensor, start: int) -> Tensor:
    """States in the order in which they are first reached."""
    order = [start]
    known = {start}
    for state in order:
        for after in table[state].tolist():
            if after not in known:
                known.add(after)
                order.append(after)
    return torch.tensor(order)


def voted(sources: Tensor, symbols: Tensor, targets: Tensor, sizes: Sequence[int]) -> Tensor:
    """The next state that most transitions have, for each state and symbol; -1 if there is none (S, V)."""
    states, alphabet = sizes
    votes = torch.zeros(states * alphabet * states, dtype=torch.int64)
    votes.index_add_(0, (sources * alphabet + symbols) * states + targets, torch.ones_like(targets))
    table = votes.view(states, alphabet, states)
    return torch.where(table.sum(2) > 0, table.argmax(2), torch.tensor(-1))
