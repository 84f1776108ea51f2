"""Which convolutions have a step, and why the others have none."""

import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from compressor.streaming.survey import survey
from tests.streaming.models import INPUT, MODELS, example, surveyed


class Front(nn.Module):
    """One convolution over positions, padded by so many on its left and right."""

    def __init__(self, conv, left, right=0):
        super().__init__()
        self.conv, self.pad = conv, (left, right)
        self.rnn = nn.GRU(4, 3, batch_first=True)

    def forward(self, x):
        y = self.conv(nn.functional.pad(x.transpose(1, 2), self.pad)).transpose(1, 2)
        return self.rnn(y)[0]


def conv(kernel=3, **options):
    return nn.Conv1d(INPUT, 4, kernel, **options)


def states(model, lengths=(7, 11)):
    return {spec.name: tuple(spec.initial.shape) for spec in survey(model.double().eval(), example, lengths).states}


def test_a_state_is_the_inputs_that_a_window_looks_back_at():
    assert states(Front(conv(), 2)) == {"conv.x": (1, INPUT, 2), "rnn.h": (1, 3)}
    assert states(Front(conv(4, dilation=3), 9))["conv.x"] == (1, INPUT, 9)
    assert states(Front(conv(1), 0)) == {"rnn.h": (1, 3)}


def test_a_layer_that_is_called_twice_has_two_states():
    found = [spec.name for spec in surveyed(MODELS["padded convolutions"]().double().eval()).states]
    assert [name for name in found if name.startswith("depthwise")] == ["depthwise.call.0.x", "depthwise.call.1.x"]


def test_a_spectrum_keeps_its_features():
    found = surveyed(MODELS["convolutions over a spectrum"]().double().eval())
    assert [tuple(spec.initial.shape) for spec in found.states] == [(1, 1, 2, INPUT), (1, 3, 2, INPUT)]


@pytest.mark.parametrize(
    ("layer", "left", "reason"),
    [
        (conv(padding=1), 0, "`conv` looks 1 positions ahead: it spans 3, and 1 of them are padding on the left"),
        (conv(padding="same"), 0, "`conv` looks 1 positions ahead"),
        (conv(), 0, "`conv` looks 2 positions ahead: it spans 3, and 0 of them"),
        (conv(5), 1, "`conv` looks 3 positions ahead: it spans 5, and 1 of them"),
        (conv(), 3, "`conv` is given 3 positions of padding and looks back 2 only"),
        (conv(stride=2), 2, "`conv` gives one output for 2 positions"),
    ],
)
def test_what_looks_ahead_or_skips_positions_is_refused_by_its_name(layer, left, reason):
    with pytest.raises(ExportError) as error:
        states(Front(layer, left))
    assert reason in error.value.message


def test_a_convolution_over_something_else_has_no_state():
    class Over(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rnn = nn.Conv1d(1, 2, 3, padding=1), nn.GRU(2 * INPUT, 3, batch_first=True)

        def forward(self, x):
            y = self.conv(x.reshape(-1, 1, INPUT)).reshape(*x.shape[:2], 2 * INPUT)
            return self.rnn(y)[0]

    assert states(Over()) == {"rnn.h": (1, 3)}


def test_of_one_length_only_a_causal_window_is_taken_for_one_over_time():
    assert states(Front(conv(), 2), (7, 7))["conv.x"] == (1, INPUT, 2)
    assert states(Front(conv(padding=1), 0), (7, 7)) == {"rnn.h": (1, 3)}


def test_the_model_is_as_before():
    model = Front(conv(), 2).double().eval()
    x = torch.randn(2, 9, INPUT).double()
    before = model(x)
    states(model)
    assert torch.equal(model(x), before)
