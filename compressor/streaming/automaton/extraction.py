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
            centres = clusters(seen.states, count, generator)
            machine = _machine(reader, seen, centres).minimal()
            agreement = agreement_of(machine, held_out, each=reader.each)
            rank = (-agreement, len(machine.table))
            unseen = reader.symbols - len(seen.known)
            if best is None or rank < best[0]:
                best = rank, Extracted(machine, len(centres), agreement, unseen)
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


def _machine(reader: Reader, seen: _Seen, centres: Tensor) -> Machine:
    """States are clusters, with the start's in front; what was never seen is taken from the model itself."""
    labels = nearest(seen.states, centres)
    labels = torch.where(labels == labels[0], 0, torch.where(labels == 0, labels[0], labels))
    count = len(centres)
    distances = (seen.states - _centres(seen.states, labels, count)[labels]).square().sum(1)
    members = torch.tensor([_nearest_row(distances, labels, number) for number in range(count)])
    place = torch.full((reader.symbols,), -1).index_copy_(0, seen.known, torch.arange(len(seen.known)))
    known = voted(labels[seen.before], place[seen.symbols], labels[1:], (count, len(seen.known)))
    stepped = _stepped(reader, seen, labels, members)
    table = stepped[:, :-1].index_copy(1, torch.arange(len(seen.known)), torch.where(known < 0, stepped[:, :-1], known))
    whole = stepped[:, -1:].expand(-1, reader.symbols).clone().index_copy_(1, seen.known, table)
    outputs = torch.zeros(count, seen.outputs.shape[1]).index_add_(0, labels[1:], seen.outputs[1:])
    sizes = torch.bincount(labels[1:], minlength=count)
    return Machine(whole, outputs / sizes.clamp(min=1)[:, None], sizes)


def _centres(states: Tensor, labels: Tensor, count: int) -> Tensor:
    sums = torch.zeros(count, states.shape[1]).index_add_(0, labels, states)
    return sums / torch.bincount(labels, minlength=count).clamp(min=1)[:, None]


def _nearest_row(distances: Tensor, labels: Tensor, number: int) -> int:
    """The real state that is nearest to the centre of a cluster; the start's own is the start."""
    if number == 0 or not bool((labels == number).any()):
        return 0
    return int(distances.masked_fill(labels != number, torch.inf).argmin())


def _stepped(reader: Reader, seen: _Seen, labels: Tensor, members: Tensor) -> Tensor:
    """Where the model itself goes from each cluster's nearest state: a column for each known symbol, one for others."""
    known = set(seen.known.tolist())
    others = [symbol for symbol in range(reader.symbols) if symbol not in known][:32]
    symbols = torch.tensor([*seen.known.tolist(), *others])
    count = len(members)
    after, _ = reader.step(seen.states[members].repeat_interleave(len(symbols), 0), symbols.repeat(count))
    centres = _centres(seen.states, labels, count)
    columns = nearest(after, centres).view(count, len(symbols))
    other = columns[:, len(known) :].mode(1).values if others else torch.zeros(count, dtype=torch.int64)
    return torch.cat([columns[:, : len(known)], other[:, None]], 1)
