"""The calls of the original's layers: the same whether they were kept or are computed again."""

import pytest
import torch
from torch import nn

from compressor.surgery.refit.calibration import calls, evaluating
from compressor.surgery.refit.originals import OriginalCalls


class Reader(nn.Module):
    """A recurrent layer whose state another layer reads, and a head that is called twice; one layer idles."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.rnn = nn.LSTM(8, 5, batch_first=True)
        self.head = nn.Linear(5, 5)
        self.idle = nn.Linear(5, 5)
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        states, (last, _) = self.rnn(self.first(x))
        return self.head(states.relu_()), self.head(last[-1])


NAMES = ("first", "rnn", "head", "idle")
BATCHES = [(torch.randn(2, steps, 3, generator=torch.Generator().manual_seed(steps)),) for steps in (4, 9, 2)]


def flat(found):
    return [[tensor for tensor in call.arguments.values() if tensor is not None] for _, call in found]


@pytest.mark.parametrize("room", [0, 300, 1200, 10**9])
def test_what_is_kept_is_what_is_computed_again(room):
    model = Reader()
    with evaluating(model):
        own = OriginalCalls(model, NAMES, BATCHES, room)
        assert own.counts == {"first": [1, 1, 1], "rnn": [1, 1, 1], "head": [2, 2, 2]}
        for _ in range(2):
            for name in own.counts:
                for index, batch in enumerate(BATCHES):
                    expected = flat(calls(model, [name], batch))
                    torch.testing.assert_close(flat(own.of(name, index)), expected, rtol=0, atol=0)


def runs(room, name, forgotten=None):
    """How often the model runs to see what a layer is given in all batches."""
    model = Reader()
    with evaluating(model):
        own = OriginalCalls(model, NAMES, BATCHES, room)
        if forgotten is not None:
            own.forget(forgotten)
        before = model.runs
        for index in range(len(BATCHES)):
            own.of(name, index)
    return model.runs - before


def test_with_room_the_model_runs_once_for_all_layers():
    assert [runs(10**9, name) for name in ("first", "rnn", "head")] == [0, 0, 0]


def test_without_room_it_runs_for_each():
    assert [runs(0, name) for name in ("first", "rnn", "head")] == [3, 3, 3]


def test_late_layers_come_first_and_the_first_batches_leave_room_for_the_others():
    # the head is given 200, 400 and 120 bytes, the recurrent layer 256, 576 and 128
    assert (runs(1200, "head"), runs(1200, "rnn")) == (0, 2)


def test_a_layer_that_is_not_asked_for_any_more_is_forgotten():
    assert runs(10**9, "head", forgotten="head") == 3
