from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressor.surgery.second_order.by_name import nearest, rounded_by_name
from compressor.surgery.second_order.solver import second_order


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.attention, self.head = nn.Embedding(11, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 5)

    def forward(self, words):
        x = self.table(words)
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def words():
    return [(torch.randint(11, (7, 13), generator=torch.Generator().manual_seed(seed)),) for seed in range(2)]


def test_a_single_matrix_is_rounded_by_the_second_moment_of_its_inputs():
    torch.manual_seed(0)
    model, batches = nn.Linear(37, 5).eval(), [(torch.randn(53, 37),)]
    found = rounded_by_name(model, batches, {"weight": (8, 4)}, 32)
    x = batches[0][0].double()
    for bits in (8, 4):
        block = 37 if bits == 8 else 32
        wanted = second_order(model.weight.detach().numpy(), (x.T @ x / len(x)).numpy(), bits, block)
        np.testing.assert_array_equal(found["weight", bits].values, wanted.values)
        np.testing.assert_array_equal(found["weight", bits].scale, wanted.scale)


def test_a_matrix_behind_sees_what_the_ones_before_it_make_in_their_last_number_of_bits():
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(37, 19), nn.Tanh(), nn.Linear(19, 3)).eval(), [(torch.randn(101, 37),)]
    names = ("0.weight", "2.weight")
    found = rounded_by_name(model, batches, {"0.weight": (8, 3), "2.weight": (4,)}, 32)
    alone = rounded_by_name(model, batches, {"0.weight": (16,), "2.weight": (4,)}, 32)
    assert list(alone) == [("2.weight", 4)]
    assert not np.array_equal(found["2.weight", 4].values, alone["2.weight", 4].values)
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(found["0.weight", 3].weight))
    again = rounded_by_name(model, batches, dict.fromkeys(names[1:], (4,)), 32)
    np.testing.assert_array_equal(again["2.weight", 4].values, found["2.weight", 4].values)


def test_projections_of_attention_are_one_matrix_again_and_tables_are_left_out():
    torch.manual_seed(0)
    model = Words().eval()
    before = {name: item.clone() for name, item in model.state_dict().items()}
    names = ["table.weight", "attention.in_proj_weight", "head.weight"]
    found = rounded_by_name(model, words(), dict.fromkeys(names, (4,)), 32)
    assert list(found) == [("attention.in_proj_weight", 4), ("head.weight", 4)]
    assert found["attention.in_proj_weight", 4].values.shape == (24, 8)
    assert all(torch.equal(item, before[name]) for name, item in model.state_dict().items())


def test_what_reads_a_table_sees_it_rounded():
    torch.manual_seed(0)
    model = Words().eval()
    found = rounded_by_name(model, words(), {"table.weight": (2,), "attention.in_proj_weight": (4,)}, 32)
    with torch.no_grad():
        model.table.weight.copy_(torch.from_numpy(nearest(model.table.weight, 2, 32).weight))
    wanted = rounded_by_name(model, words(), {"attention.in_proj_weight": (4,)}, 32)
    key = ("attention.in_proj_weight", 4)
    np.testing.assert_array_equal(found[key].values, wanted[key].values)


def test_a_matrix_of_which_some_rows_multiply_nothing_is_left_out():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 6)

        def forward(self, x):
            return x @ self.layer.weight[:4].T

    assert not rounded_by_name(Half().eval(), [(torch.randn(9, 8),)], {"layer.weight": (4,)}, 32)
