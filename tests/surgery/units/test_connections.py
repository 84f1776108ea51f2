"""What drives what, as the trace finds it, against matrices put together by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.connections import connections
from tests.surgery.topologies import CELLS, HIDDEN, INPUT, CellLoop, SummedDirections, TwoModules

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}


def found(model, *, scope, combine="max", names=None):
    seen = trace(model.eval(), (torch.randn(2, 3, INPUT), torch.tensor([3, 2])))
    return connections(model, seen, names, scope=scope, combine=combine)


def strengths(weight, gates, combine="max"):
    blocks = torch.stack([part.abs() for part in weight.detach().chunk(gates)])
    return blocks.amax(0) if combine == "max" else blocks.square().sum(0).sqrt()


class TwoLayers(nn.Module):
    def __init__(self, cell, **options):
        super().__init__()
        self.rnn = cell(INPUT, HIDDEN, 2, batch_first=True, **options)
        wide = 2 if self.rnn.bidirectional else 1
        self.head = nn.Linear(wide * (self.rnn.proj_size or HIDDEN), 3)

    def forward(self, x, lengths):
        return self.head(self.rnn(x)[0])


class TopDown(nn.Module):
    """Two cells; the lower one reads what the upper one said the step before."""

    def __init__(self):
        super().__init__()
        self.lower, self.upper, self.head = nn.GRUCell(INPUT + 7, 11), nn.LSTMCell(11, 7), nn.Linear(7, 3)

    def forward(self, x, lengths):
        low, (high, memory) = x.new_zeros(len(x), 11), x.new_zeros(2, len(x), 7)
        for step in x.unbind(1):
            low = self.lower(torch.cat([step, high], dim=1), low)
            high, memory = self.upper(low, (high, memory))
        return self.head(high)


@pytest.mark.parametrize("combine", ["max", "l2"])
@pytest.mark.parametrize("cell", CELLS)
def test_each_layer_and_direction_has_the_matrix_of_its_recurrent_weights(cell, combine):
    model = TwoLayers(CELLS[cell], bidirectional=True)
    parts = found(model, scope="layer", combine=combine)
    names = ["l0", "l0_reverse", "l1", "l1_reverse"]
    assert [part.label.split(" of ")[0] for part in parts] == [
        "layer 0", "layer 0, backwards", "layer 1", "layer 1, backwards",
    ]  # fmt: skip
    for part, name in zip(parts, names, strict=True):
        weight = model.rnn.get_parameter(f"weight_hh_{name}")
        torch.testing.assert_close(part.strengths, strengths(weight, GATES[cell], combine))
        assert bool(part.present.all())


def test_one_order_over_all_layers_has_their_input_weights_as_further_blocks():
    model = TwoLayers(nn.LSTM)
    (part,) = found(model, scope="global")
    hand = torch.zeros(2 * HIDDEN, 2 * HIDDEN)
    hand[:HIDDEN, :HIDDEN] = strengths(model.rnn.weight_hh_l0, 4)
    hand[HIDDEN:, HIDDEN:] = strengths(model.rnn.weight_hh_l1, 4)
    hand[HIDDEN:, :HIDDEN] = strengths(model.rnn.weight_ih_l1, 4)
    torch.testing.assert_close(part.strengths, hand)
    assert torch.equal(part.present, hand > 0)


def test_what_stands_between_two_modules_does_not_hide_their_connections():
    model = TwoModules(nn.GRU)
    (part,) = found(model, scope="global")
    torch.testing.assert_close(part.strengths[11:, :11], strengths(model.second.weight_ih_l0, 3))
    assert not part.present[:11, 11:].any()


def test_top_down_feedback_is_found_without_a_rule_for_it():
    model = TopDown()
    (part,) = found(model, scope="global")
    torch.testing.assert_close(part.strengths[:11, 11:], strengths(model.lower.weight_ih[:, INPUT:], 3))
    torch.testing.assert_close(part.strengths[11:, :11], strengths(model.upper.weight_ih, 4))
    assert bool(part.present.all())


def test_tied_units_are_one_element_with_the_stronger_connection():
    model = SummedDirections(nn.RNN)
    (part,) = found(model, scope="global")
    both = torch.stack([model.rnn.weight_hh_l0.abs(), model.rnn.weight_hh_l0_reverse.abs()]).detach()
    assert len(part.groups) == HIDDEN
    torch.testing.assert_close(part.strengths, both.amax(0))


def test_a_projected_layer_is_driven_through_its_projection():
    model = TwoLayers(nn.LSTM, proj_size=5)
    for layer, part in enumerate(found(model, scope="layer")):
        product = model.rnn.get_parameter(f"weight_hh_l{layer}") @ model.rnn.get_parameter(f"weight_hr_l{layer}")
        torch.testing.assert_close(part.strengths, strengths(product, 4))


def test_only_the_named_modules_take_part():
    model = TwoModules(nn.GRU)
    parts = found(model, scope="layer", names=["second"])
    assert [part.label for part in parts] == ["layer 0 of `second`"]


def test_a_cell_in_a_loop_drives_itself():
    model = CellLoop(nn.GRUCell)
    (part,) = found(model, scope="layer")
    torch.testing.assert_close(part.strengths, strengths(model.rnn.weight_hh, 3))
    assert np.array_equal(np.unique(part.groups), part.groups)
