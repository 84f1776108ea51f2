from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.surgery.second_order.bits import CHOICES, choose_bits, stored_bytes

NAMES = ["table.weight", "head.weight", "unheard.weight"]


class Net(nn.Module):
    """Two heads, of which the second counts for little."""

    def __init__(self):
        super().__init__()
        self.table, self.head, self.unheard = nn.Embedding(53, 32), nn.Linear(32, 40), nn.Linear(32, 40)

    def forward(self, words):
        x = self.table(words)
        return {"y": (self.head(x) + 1e-3 * self.unheard(x), words)}


def net():
    torch.manual_seed(0)
    return Net().eval(), [(torch.randint(53, (7, 11)),)]


@pytest.mark.parametrize("average", [3.7, 5.0, 7.9])
def test_what_counts_for_little_gets_fewer_bits_and_the_average_is_kept(average):
    model, batches = net()
    before = {name: item.clone() for name, item in model.state_dict().items()}
    bits = choose_bits(model, batches, NAMES, average, 32)
    assert set(bits.values()) <= set(CHOICES)
    assert bits["unheard.weight"] < bits["head.weight"]
    weights = [model.get_parameter(name) for name in NAMES]
    used = 8 * sum(stored_bytes(item.shape, bits[name], 32) for name, item in zip(NAMES, weights, strict=True))
    assert 0.8 * average < used / sum(item.numel() for item in weights) <= average
    assert all(torch.equal(item, before[name]) for name, item in model.state_dict().items())


@pytest.mark.parametrize("average", [4.6, 5.5])
def test_what_stays_in_eight_bits_is_part_of_the_average(average):
    model, batches = net()
    model.stem = nn.Conv2d(3, 20, (3, 5))
    bits = choose_bits(model, batches, NAMES, average, 32, eight=["stem.weight"])
    assert set(bits) == set(NAMES)
    weights = {name: model.get_parameter(name) for name in NAMES}
    used = sum(stored_bytes(item.shape, bits[name], 32) for name, item in weights.items())
    used += stored_bytes((20, 45), 8, 32)
    assert 0.8 * average < 8 * used / sum(item.numel() for item in (*weights.values(), model.stem.weight)) <= average
    assert sum(bits.values()) < sum(choose_bits(model, batches, NAMES, average, 32).values())


def test_bytes_are_those_of_integers_and_scales():
    assert stored_bytes((3, 37), 8, 32) == 3 * (37 + 2)
    assert stored_bytes((3, 37), 5, 32) == 3 * (24 + 2 * 2)
    assert stored_bytes((3, 37), 16, 32) == 3 * 37 * 2


def test_too_few_bits_are_refused():
    model, batches = net()
    with pytest.raises(MethodError, match=r"`bits: 2.1` are too few: .* bytes"):
        choose_bits(model, batches, NAMES, 2.1, 32)
