"""A survey finds the states of a model by name, or refuses the layer that has no step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from tests.streaming.models import INPUT, MODELS, WIDTH, Attention, Layer, Twice, surveyed


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("gru", ["layer.h.0", "layer.h.1"]),
        ("low rank", ["layer.h.0", "layer.c.0", "layer.h.1", "layer.c.1"]),
        ("uneven", ["layer.layers.0.h", "layer.layers.0.c", "layer.layers.1.h", "layer.layers.1.c"]),
        ("twice", ["layer.call.0.h", "layer.call.0.c", "layer.call.1.h", "layer.call.1.c"]),
        ("cells", ["first.h", "first.c", "second.call.0.h", "second.call.1.h", "third.h"]),
        ("attention", [f"encoder.layers.{i}.self_attn.{kind}" for i in (0, 1) for kind in "kv"]),
        ("aaren", [f"encoder.layers.{i}.self_attn.{kind}" for i in (0, 1) for kind in "acm"]),
    ],
)
def test_states_carry_the_names_of_their_layers(name, names):
    model = MODELS[name]().double().eval()
    assert [spec.name for spec in surveyed(model).states] == names


def test_a_learned_initial_state_is_where_a_stream_starts():
    model = Twice().double().eval()
    initial = {spec.name: spec.initial for spec in surveyed(model).states}
    assert not initial["layer.call.0.h"].any()
    torch.testing.assert_close(initial["layer.call.1.c"], model.start[1, 0].detach())


class FromInputs(nn.Module):
    """Starts from a state that the inputs decide."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(INPUT, INPUT, batch_first=True)

    def forward(self, x):
        return self.layer(x, x.new_ones(1, x.size(0), 1) * x[:, :1].transpose(0, 1))[0]


class EverySecond(nn.Module):
    """Calls a cell at every second position."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(INPUT, WIDTH)

    def forward(self, x):
        h = None
        for position in range(0, x.size(1), 2):
            h = self.cell(x[:, position], h)
        return h


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Layer(nn.GRU(WIDTH, 7, bidirectional=True)), "`layer` is bidirectional"),
        (lambda: Attention(mask="none"), "`encoder.layers.0.self_attn` has no step for one position: it has no mask"),
        (lambda: Attention(mask="window"), "`encoder.layers.0.self_attn` has no step for one position: its mask is"),
        (FromInputs, "the initial state of `layer` depends on the model's inputs"),
        (EverySecond, "`cell` is called 4 times at length 7 and 6 times at length 11"),
    ],
)
def test_what_has_no_step_is_refused_by_name(model, message):
    with pytest.raises(ExportError) as caught:
        surveyed(model().double().eval())
    assert caught.value.message.startswith(message)
    assert caught.value.hint
