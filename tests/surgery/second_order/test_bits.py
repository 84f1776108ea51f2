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


class Seen(Net):
    """The same behind a convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(32, 32, 3, padding=1)

    def forward(self, words):
        x = self.stem(self.table(words).transpose(1, 2)).transpose(1, 2)
        return {"y": (self.head(x) + 1e-3 * self.unheard(x), words)}


@pytest.mark.parametrize("average", [4.6, 6.0])
def test_what_is_not_trained_has_its_share_of_the_average(average):
    torch.manual_seed(0)
    model, batches = Seen().eval(), net()[1]
    bits = choose_bits(model, batches, NAMES, average, 32, untrained=["stem.weight"])
    weights = {name: model.get_parameter(name) for name in (*NAMES, "stem.weight")}
    assert set(bits) == set(weights)
    assert bits["stem.weight"] > bits["unheard.weight"]
    used = sum(stored_bytes(item.flatten(1).shape, bits[name], 32) for name, item in weights.items())
    assert 0.8 * average < 8 * used / sum(item.numel() for item in weights.values()) <= average


def test_bytes_are_those_of_integers_and_scales():
    assert stored_bytes((3, 37), 8, 32) == 3 * (37 + 2)
    assert stored_bytes((3, 37), 5, 32) == 3 * (24 + 2 * 2)
    assert stored_bytes((3, 37), 16, 32) == 3 * 37 * 2


def test_too_few_bits_are_refused():
    model, batches = net()
    with pytest.raises(MethodError, match=r"`bits: 2.1` are too few: .* bytes"):
        choose_bits(model, batches, NAMES, 2.1, 32)
