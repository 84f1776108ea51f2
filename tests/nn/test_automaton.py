"""An automaton is its tables: one look-up for each symbol, whole, at every position, and step by step."""

import pytest
import torch

from compressor.errors import CheckpointError
from compressor.nn.automaton import Automaton

CLASSES = [0, 1, 1, 2, 0]
TABLE = [[0, 1, 3], [2, 0, 1], [3, 3, 0], [1, 2, 2]]
OUTPUTS = torch.tensor([[0.5, -1.0], [2.0, 3.0], [-4.0, 5.5], [7.0, 0.25]])


def automaton(*, each=False):
    return Automaton.from_tables(CLASSES, TABLE, OUTPUTS, each=each)


def naive(symbols):
    """The states after each symbol of one string."""
    state, states = 0, []
    for symbol in symbols:
        state = TABLE[state][CLASSES[symbol]]
        states.append(state)
    return states


@pytest.mark.parametrize("length", [1, 2, 11])
def test_it_gives_the_outputs_of_the_states_that_the_table_leads_to(length):
    strings = torch.randint(0, len(CLASSES), (7, length), generator=torch.Generator().manual_seed(length))
    states = torch.tensor([naive(string) for string in strings.tolist()])
    torch.testing.assert_close(automaton(each=True)(strings), OUTPUTS[states], rtol=0, atol=0)
    torch.testing.assert_close(automaton()(strings), OUTPUTS[states[:, -1]], rtol=0, atol=0)


def test_every_state_and_class_has_its_own_place_in_the_table():
    step = automaton().step
    for state, row in enumerate(TABLE):
        for symbol, kind in enumerate(CLASSES):
            assert step(torch.tensor([symbol]), torch.tensor([state])).tolist() == [row[kind]]


@pytest.mark.parametrize("each", [False, True])
def test_the_record_gives_an_automaton_of_the_same_sizes_that_takes_its_tables(each):
    own = automaton(each=each)
    record = own.record()
    assert record == {"symbols": 5, "classes": 3, "states": 4, "outputs": 2, "each": each}
    again = Automaton.from_record(record)
    again.load_state_dict(own.state_dict())
    strings = torch.tensor([[3, 1, 4], [0, 2, 2]])
    torch.testing.assert_close(again(strings), own(strings), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not own.training


@pytest.mark.parametrize("change", [{"symbols": 0}, {"states": 1 << 24}, {"each": "yes"}, {"more": 1}])
def test_a_record_that_is_none_is_refused(change):
    with pytest.raises(CheckpointError):
        Automaton.from_record(automaton().record() | change)
