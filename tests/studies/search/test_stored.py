"""What a file holds of a model: bits of matrices, bytes of weights, and the shares of `precision: mixed`."""

import copy

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.studies.search.stored import (
    Precision,
    bits_at_hand,
    fewest_forms,
    importances,
    matrix_bytes,
    round_in_place,
    stored_forms,
    weight_bytes,
)
from compressor.training.rounding import Rounding


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 40)
        self.rnn = nn.GRU(40, 24, batch_first=True)
        self.out = nn.Linear(24, 37)

    def forward(self, tokens):
        return self.out(self.rnn(self.table(tokens))[0])


TOKENS = torch.arange(22).reshape(2, 11) % 11


def bits(net, precision, importance=None):
    return {name: matrix.bits for name, matrix in stored_forms(net, precision, importance or {}).items()}


def test_products_have_4_bits_and_tables_8():
    found = bits(Net(), Precision("int4"))
    assert found == {"table.weight": 8, "rnn.weight_ih_l0": 4, "rnn.weight_hh_l0": 4, "out.weight": 4}
    assert bits(Net(), Precision("float16")) == {}


def test_bytes_are_integers_and_scales_of_rows_or_blocks_and_floats_for_the_rest():
    net = Net()
    forms = stored_forms(net, Precision("int8"), {})
    eight = sum(parameter.numel() + 2 * len(parameter) for parameter in net.parameters() if parameter.dim() == 2)
    biases = 4 * sum(parameter.numel() for parameter in net.parameters() if parameter.dim() == 1)
    assert weight_bytes(net, forms, "int8") == eight + biases
    assert matrix_bytes(torch.empty(3, 40), 4) == 60 + 2 * 3 * 2
    assert weight_bytes(net, {}, "float16") == 2 * sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("average", [2.75, 3.5, 5.0, 7.25])
def test_mixed_bits_keep_the_average_scales_included_and_use_it(average):
    net = Net()
    forms = stored_forms(net, Precision("mixed", average), importances(net, [TOKENS]))
    numbers = sum(matrix.parameter.numel() for matrix in forms.values())
    used = 8 * sum(matrix_bytes(matrix.parameter, matrix.bits) for matrix in forms.values()) / numbers
    assert average - 1.2 < used <= average


def test_what_matters_more_gets_more_bits():
    net = Net()
    even = dict.fromkeys(["table.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "out.weight"], 1.0)
    first = bits(net, Precision("mixed", 4.5), even)
    second = bits(net, Precision("mixed", 4.5), even | {"out.weight": 1e4})
    assert second["out.weight"] > first["out.weight"]


def test_what_training_has_rounded_keeps_its_bits_and_its_weights_though_its_steps_clip():
    net = Net()
    trained = Rounding(
        net, "mixed", learn_steps=True, bits={"rnn.weight_hh_l0": 3, "out.weight": 5, "table.weight": 16}
    )
    trained.finish()
    at_hand = bits_at_hand(net)
    assert at_hand == {"rnn.weight_ih_l0": 8, "rnn.weight_hh_l0": 3, "out.weight": 5}
    before = {name: item.detach().clone() for name, item in net.named_parameters()}
    forms = stored_forms(net, Precision("mixed", 9.0), {}, at_hand)
    assert {name: forms[name].bits for name in at_hand} == at_hand
    round_in_place(forms)
    assert all(torch.equal(item, before[name]) for name, item in net.named_parameters())


def test_an_average_below_the_fewest_bits_is_refused_before_anything_is_trained():
    narrow = nn.Sequential(nn.Linear(9, 60))
    with pytest.raises(MethodError, match=r"cannot have 2\.75 bits on average"):
        stored_forms(narrow, Precision("mixed", 2.75), {})
    assert {matrix.bits for matrix in fewest_forms(narrow, "mixed").values()} == {2}


def test_importance_times_the_error_of_a_matrix_is_what_the_outputs_move():
    net = Net().eval()
    weight = net.out.weight.detach().clone()
    importance = importances(net, [TOKENS])["out.weight"]
    assert torch.equal(net.out.weight, weight)
    rough = copy.deepcopy(net)
    forms = stored_forms(rough, Precision("int4"), {})
    round_in_place({"out.weight": forms["out.weight"]})
    with torch.no_grad():
        exact, moved = net(TOKENS), rough(TOKENS)
    own = (rough.out.weight.detach() - weight).square().sum()
    expected = (moved - exact).square().sum() / exact.square().sum() / own
    assert importance == pytest.approx(float(expected), rel=1e-4)
