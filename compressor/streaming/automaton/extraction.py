"""Extracts the automaton that a recurrent model is nearest to: clusters, votes, minimisation, choice on other strings.

Sources: Wang and Niepert, arXiv 1901.08817, which read an automaton off centroids of hidden states; Omlin and Giles,
1996, for minimising what clusters give. Written from the descriptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.streaming.automaton.clusters import clusters, nearest
from compressor.streaming.automaton.machine import Machine, decided, voted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.streaming.automaton.reading import Reader, Reading

COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of clusters that are tried."""
STARTS = 2
"""Attempts at each number."""


@dataclass(frozen=True)
class Extracted:
    """The best machine."""

    machine: Machine
    clusters: int
    """Of hidden states, before states were merged."""
    agreement: float
    """Share of decisions on held-out strings that are the model's."""
    unseen: int
    """Symbols that no string has; they act as one."""


@dataclass(frozen=True)
class _Seen:
    """All transitions of the training strings; row 0 is the start."""

    states: Tensor
    outputs: Tensor
    """Of row 0 it is zero."""
    before: Tensor
    symbols: Tensor
    """`before` and `symbols` of rows 1 and on."""
    known: Tensor
    """Symbols that occur, in order."""


def extract(
    reader: Reader,
    training: Sequence[Reading],
    held_out: Sequence[Reading],
    counts: Sequence[int],
    generator: torch.Generator,
    advance: Callable[[], None],
) -> Extracted:
    """The machine that agrees best with the model on held-out strings; of equal ones that with the fewest states."""
    seen = _transitions(reader, training)
    best: tuple[tuple[float, int], Extracted] | None = None
    for count in counts:
        for _ in range(STARTS):
            centres = _Centres.of(seen, count, generator)
            machine = _machine(reader, seen, centres).minimal()
            agreement = agreement_of(machine, held_out, each=reader.each)
            rank = (-agreement, len(machine.table))
            unseen = reader.symbols - len(seen.known)
            if best is None or rank < best[0]:
                best = rank, Extracted(machine, len(centres.points), agreement, unseen)
            advance()
    assert best is not None
    return best[1]


def agreement_of(machine: Machine, readings: Sequence[Reading], *, each: bool) -> float:
    """Share of decisions that are the model's: of every symbol, or of whole strings."""
    same = total = 0
    for reading in readings:
        states = machine.run(reading.strings)
        mine, wanted = decided(machine.outputs)[states], decided(reading.outputs)
        if not each:
            mine, wanted = mine[:, -1], wanted[:, -1]
        same += int((mine == wanted).sum())
        total += mine.numel()
    return same / max(total, 1)


def _transitions(reader: Reader, readings: Sequence[Reading]) -> _Seen:
    states, outputs = [reader.start[None]], [readings[0].outputs.new_zeros(1, readings[0].outputs.shape[-1])]
    before, symbols, row = [], [], 1
    for reading in readings:
        batch, length = reading.strings.shape
        rows = torch.arange(row, row + batch * length).view(batch, length)
        before.append(torch.cat([torch.zeros(batch, 1, dtype=torch.int64), rows[:, :-1]], 1).flatten())
        symbols.append(reading.strings.flatten())
        states.append(reading.states.flatten(0, 1))
        outputs.append(reading.outputs.flatten(0, 1))
        row += batch * length
    every = torch.cat(symbols)
    return _Seen(torch.cat(states), torch.cat(outputs), torch.cat(before), every, torch.unique(every))


@dataclass(frozen=True)
class _Centres:
    """Centres of clusters (K, D), each of states that decide alike, and what those decide (K,)."""

    points: Tensor
    decisions: Tensor

    @classmethod
    def of(cls, seen: _Seen, count: int, generator: torch.Generator) -> _Centres:
        """About `count` clusters, as many for each decision: rare ones are not lost among frequent ones."""
        decisions = decided(seen.outputs[1:])
        kinds = torch.unique(decisions).tolist()
        each = max(1, count // len(kinds))
        parts = [clusters(seen.states[1:][decisions == kind], each, generator) for kind in kinds]
        owners = [torch.full((len(part),), kind) for part, kind in zip(parts, kinds, strict=True)]
        return cls(torch.cat(parts), torch.cat(owners))

    def nearest(self, states: Tensor, decisions: Tensor) -> Tensor:
        """The nearest centre of each state's decision; of all of them if no cluster has that decision."""
        labels = nearest(states, self.points)
        for kind in torch.unique(decisions).tolist():
            own = (self.decisions == kind).nonzero().flatten()
            rows = (decisions == kind).nonzero().flatten()
            if len(own):
                labels[rows] = own[nearest(states[rows], self.points[own])]
        return labels


def _machine(reader: Reader, seen: _Seen, centres: _Centres) -> Machine:
    """State 0 is the start, the others are clusters; what was never seen is taken from the model itself."""
    found = centres.nearest(seen.states[1:], decided(seen.outputs[1:]))
    labels = torch.cat([torch.zeros(1, dtype=torch.int64), found + 1])
    count = len(centres.points) + 1
    distances = (seen.states[1:] - centres.points[found]).square().sum(1)
    members = torch.tensor([0, *(_nearest_row(distances, found, number) for number in range(count - 1))])
    place = torch.full((reader.symbols,), -1).index_copy_(0, seen.known, torch.arange(len(seen.known)))
    known = voted(labels[seen.before], place[seen.symbols], labels[1:], (count, len(seen.known)))
    stepped = _stepped(reader, seen, centres, members)
    table = torch.where(known < 0, stepped[:, :-1], known)
    whole = stepped[:, -1:].expand(-1, reader.symbols).clone().index_copy_(1, seen.known, table)
    outputs = torch.zeros(count, seen.outputs.shape[1]).index_add_(0, labels[1:], seen.outputs[1:])
    sizes = torch.bincount(labels[1:], minlength=count)
    return Machine(whole, outputs / sizes.clamp(min=1)[:, None], sizes)


def _nearest_row(distances: Tensor, labels: Tensor, number: int) -> int:
    """The row of the real state that is nearest to the centre of a cluster; that of the start if it has none."""
    if not bool((labels == number).any()):
        return 0
    return 1 + int(distances.masked_fill(labels != number, torch.inf).argmin())


def _stepped(reader: Reader, seen: _Seen, centres: _Centres, members: Tensor) -> Tensor:
    """Where the model itself goes from each cluster's nearest state: a column for each known symbol, one for others."""
    known = set(seen.known.tolist())
    others = [symbol for symbol in range(reader.symbols) if symbol not in known][:32]
    symbols = torch.tensor([*seen.known.tolist(), *others])
    count = len(members)
    after, outputs = reader.step(seen.states[members].repeat_interleave(len(symbols), 0), symbols.repeat(count))
    columns = 1 + centres.nearest(after, decided(outputs)).view(count, len(symbols))
    other = columns[:, len(known) :].mode(1).values if others else torch.zeros(count, dtype=torch.int64)
    return torch.cat([columns[:, : len(known)], other[:, None]], 1)
