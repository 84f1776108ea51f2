"""Recurrent layers and cells in the trace: what is tied to their units."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import SurgeryError
from tests.surgery.trace.chains import INPUTS, WIDTH, sequences, smaller

LAYERS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


def first(state):
    return state[0] if isinstance(state, tuple) else state


class Layer(nn.Module):
    """A recurrent layer and what `read` makes of its outputs and states."""

    def __init__(self, kind, read, **options):
        super().__init__()
        self.first = LAYERS[kind](INPUTS, WIDTH, batch_first=True, **options)
        self.head, self.read = nn.LazyLinear(3), read

    def forward(self, x):
        return self.head(self.read(*self.first(x)))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
def test_states_carry_the_units_of_each_layer_and_direction(kind, directions, layers):
    options = {"bidirectional": directions == 2, "num_layers": layers}
    found = smaller(Layer(kind, lambda y, state: first(state).transpose(0, 1).flatten(1), **options), sequences())
    assert (found.first.hidden_size, found.head.in_features) == (6, 6 * directions * layers)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_state_of_the_last_layer(kind):
    found = smaller(Layer(kind, lambda y, state: first(state)[-1], num_layers=3), sequences())
    assert (found.first.hidden_size, found.head.in_features) == (6, 6)
    assert found.first.weight_ih_l2.size(1) == 6


def test_the_state_of_the_cell_carries_the_same_units():
    found = smaller(Layer("lstm", lambda y, state: torch.cat([state[1][0], state[0][0]], -1)), sequences())
    assert (found.first.hidden_size, found.head.in_features) == (6, 12)


def test_a_projection_and_its_cells_are_units_of_two_kinds():
    found = smaller(Layer("lstm", lambda y, state: torch.cat([y[:, -1], state[1][0]], -1), proj_size=4), sequences())
    assert found.head.in_features == found.first.proj_size + found.first.hidden_size
    assert found.first.hidden_size < WIDTH


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("directions", [1, 2])
def test_packed_sequences(kind, directions):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = LAYERS[kind](INPUTS, WIDTH, batch_first=True, bidirectional=directions == 2)
            self.head = nn.Linear(WIDTH * directions, 3)

        def forward(self, x):
            lengths = torch.arange(len(x), 0, -1) + 2
            packed = pack_padded_sequence(x, lengths, batch_first=True)
            return self.head(pad_packed_sequence(self.first(packed)[0], batch_first=True)[0])

    found = smaller(Packed(), sequences())
    assert (found.first.hidden_size, found.head.in_features) == (6, 6 * directions)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("bias", [False, True])
def test_cells_in_a_loop(kind, bias):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.below = CELLS[kind](INPUTS, WIDTH, bias=bias)
            self.first, self.head = CELLS[kind](WIDTH, WIDTH, bias=bias), nn.Linear(WIDTH, 3)

        def forward(self, x):
            low = high = None
            for step in x.unbind(1):
                low = self.below(step, low)
                high = self.first(first(low), high)
            return self.head(first(high))

    found = smaller(Loop(), sequences(), names=("below", "first"))
    assert (found.below.hidden_size, found.first.input_size, found.first.hidden_size) == (6, 6, 6)


@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_a_state_that_a_layer_makes_loses_the_same_units(kind):
    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.first = nn.Linear(INPUTS, WIDTH), LAYERS[kind](INPUTS, WIDTH, batch_first=True)
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, x):
            return self.head(self.first(x, self.start(x.mean(1))[None])[0])

    found = smaller(Started(), sequences())
    assert (found.start.out_features, found.first.hidden_size) == (6, 6)


def test_a_state_of_fixed_numbers_keeps_the_units():
    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.GRU(INPUTS, WIDTH, batch_first=True), nn.Linear(WIDTH, 3)

        def forward(self, x):
            start = torch.linspace(0, 1, WIDTH, dtype=x.dtype).expand(1, len(x), WIDTH)
            return self.head(self.first(x, start)[0])

    with pytest.raises(SurgeryError, match=r"the initial state of `first` is given from outside with a fixed size"):
        smaller(Started(), sequences())


def test_a_state_that_is_partly_made_by_a_layer_keeps_the_others():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.first = nn.Linear(INPUTS, WIDTH - 5), nn.GRU(INPUTS, WIDTH, batch_first=True)
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, x):
            state = torch.cat([self.start(x.mean(1)), x[:, 0]], -1)
            return self.head(self.first(x, state[None])[0])

    found = smaller(Partly(), sequences())
    assert (found.start.out_features, found.first.hidden_size) == (1, 6)


def test_weights_of_two_layers_in_one_are_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.other, self.first = (nn.GRU(WIDTH, WIDTH, batch_first=True) for _ in range(2))
            self.enter, self.head = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, 3)
            for name, parameter in self.other.named_parameters():
                setattr(self.first, name, parameter)

        def forward(self, x):
            return self.head(self.first(self.other(self.enter(x))[0])[0])

    with pytest.raises(SurgeryError, match=r"`first` shares its weights with `other.weight_hh_l0`"):
        smaller(Tied(), sequences())
