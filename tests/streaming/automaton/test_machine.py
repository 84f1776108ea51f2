"""Machines: merged states decide alike for every string, and no fewer states could."""

from __future__ import annotations

import pytest
import torch

from compressor.streaming.automaton.clusters import clusters, nearest
from compressor.streaming.automaton.machine import Machine, decided, voted


def random_machine(states, symbols, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(states, (states, symbols), generator=generator)
    scores = torch.randn(states, outputs, generator=generator)
    return Machine(table, scores, torch.ones(states, dtype=torch.int64))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_minimal_machine_decides_the_same_for_every_string(seed, outputs):
    machine = random_machine(17, 3, outputs, seed)
    small = machine.minimal()
    strings = torch.randint(3, (200, 23), generator=torch.Generator().manual_seed(seed))
    assert decided(small.outputs)[small.run(strings)].equal(decided(machine.outputs)[machine.run(strings)])
    assert len(small.table) <= len(machine.table)
    again = small.minimal()
    assert again.table.equal(small.table)


def test_states_that_are_copies_are_merged_and_unreached_ones_go():
    parity = torch.tensor([[0, 1], [1, 0]])
    # states 0, 2 and 1, 3 are copies of each other; nothing leads to state 4
    table = torch.tensor([[2, 3], [1, 0], [0, 1], [3, 2], [0, 1]])
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0], [0.0, 9.0]])
    small = Machine(table, outputs, torch.tensor([1, 1, 3, 1, 1])).minimal()
    assert small.table.equal(parity)
    torch.testing.assert_close(small.outputs, torch.tensor([[2.5, 0.0], [0.0, 1.5]]))
    assert small.counts.tolist() == [4, 2]


def test_a_start_that_nothing_leads_to_is_the_state_that_goes_on_alike():
    table = torch.tensor([[1, 2], [1, 2], [2, 1]])
    outputs = torch.tensor([[9.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert len(Machine(table, outputs, torch.tensor([0, 1, 1])).minimal().table) == 2
    assert len(Machine(table, outputs, torch.tensor([1, 1, 1])).minimal().table) == 3


def test_symbols_that_act_alike_are_one_class():
    classes, table = Machine(torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1]]), torch.zeros(2, 2), torch.ones(2)).classes()
    assert classes == [0, 1, 0, 1]
    assert table.tolist() == [[1, 0], [0, 1]]


def test_votes_take_what_most_transitions_do():
    sources, symbols, targets = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
    assert voted(sources, symbols, targets, (2, 2)).tolist() == [[-1, 1], [0, -1]]


def test_clusters_find_points_that_lie_together_and_are_repeatable():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    points = centres.repeat_interleave(20, 0) + 0.1 * torch.randn(60, 2, generator=generator)
    found = [clusters(points, 3, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert found[0].equal(found[1])
    labels = nearest(points, found[0]).view(3, 20)
    assert all(len(set(row.tolist())) == 1 for row in labels)
    assert len(clusters(torch.ones(5, 2), 3, generator)) == 1
