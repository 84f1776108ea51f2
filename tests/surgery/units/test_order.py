"""Which units an order keeps."""

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.connections import Block, Connections
from compressor.surgery.units.order import Settings, as_many, keeping, read, scorer
from compressor.surgery.units.removal import prune
from compressor.surgery.units.scores import magnitude, random
from tests.surgery.topologies import INPUT

UNITS = 7


def relation(rows):
    """Connections of strength 1 where a row of text has a mark."""
    matrix = torch.tensor([[float(mark == "x") for mark in row] for row in rows])
    size = len(matrix)
    every = torch.arange(size)
    block = Block("rnn.weight_hh_l0", 1, every, every, every)
    return Connections("the test", every.numpy(), matrix, torch.ones(size, size, dtype=torch.bool), (block,))


BINARY = Settings(threshold=0.5)
MEET = relation(["xx.x", "x...", ".x..", "...."])
"""Unit 0 drives 0 and 1, unit 1 drives 0 and 2, unit 3 only 0: what both have in common. Unit 2 drives nothing."""


def test_a_unit_that_drives_what_others_have_in_common_is_redundant():
    reading = read(MEET, BINARY)
    # the empty extent of unit 2 is no intersection of the others, which all drive unit 0
    assert reading.kept.tolist() == [True, True, True, False]
    assert "3 meet-irreducible" in reading.facts
    assert "5 of 16 connections" in reading.facts


def test_of_units_that_drive_the_same_the_most_central_stays():
    twins = relation(["..x.", "xx..", "...x", ".xx."])
    twins.strengths[:, 0] = twins.strengths[:, 1]
    reading = read(twins, BINARY)
    first, second = reading.centrality[:2].tolist()
    assert reading.kept[:2].tolist() == [first >= second, first < second]


def test_kept_units_score_above_all_others_and_central_ones_higher():
    reading = read(MEET, BINARY)
    kept, gone = reading.scores[reading.kept], reading.scores[~reading.kept]
    assert float(kept.min()) >= 1.0 > float(gone.max()) >= 0.0
    assert torch.equal(reading.centrality[reading.kept].argsort(), kept.argsort())


def test_a_connection_stays_that_counts_and_has_a_kept_end():
    reading = read(MEET, BINARY)
    for i in range(4):
        for j in range(4):
            counts = MEET.strengths[i, j] > 0.5
            assert bool(keeping(reading)[i, j]) == bool(counts and (reading.kept[i] or reading.kept[j]))


@pytest.mark.parametrize("adjacency", ["binary", "continuous"])
def test_an_order_that_says_nothing_is_refused_with_the_reason(adjacency):
    everything = relation(["xxx"] * 3)
    settings = Settings(
        adjacency=adjacency, order="reachability", **({"threshold": 0.5} if adjacency == "binary" else {})
    )
    with pytest.raises(
        MethodError, match="the order of the test cannot guide pruning: one class holds 3 of 3"
    ) as caught:
        read(everything, settings)
    assert "closure" in caught.value.hint


def test_a_dense_layer_collapses_under_reachability_and_not_under_closure():
    torch.manual_seed(0)
    dense = relation(["x" * 64] * 64)
    dense.strengths.copy_(torch.randn(64, 64).abs())
    assert "64 units in 64 classes" in read(dense, Settings()).facts
    with pytest.raises(MethodError, match="one class holds 64 of 64 units"):
        read(dense, Settings(order="reachability"))


def test_a_component_stays_or_goes_as_a_whole_under_reachability():
    # 0 and 1 reach each other and lead to 2 and 3, which lead to 4
    chain = relation([".x...", "x....", ".x...", ".x...", "..xx."])
    reading = read(chain, Settings(threshold=0.5, order="reachability"))
    assert bool(reading.kept[0]) == bool(reading.kept[1])
    assert "5 units in 4 classes, the largest of 2" in reading.facts


def test_continuous_degrees_make_a_minimum_of_two_columns_redundant():
    degrees = relation(["....", "....", "....", "...."])
    degrees.strengths.copy_(torch.tensor([[1.0, 0.6, 0.6, 0.2], [0.3, 0.9, 0.3, 0.1], [0.2, 0.5, 0.2, 0.9], [0.0] * 4]))
    reading = read(degrees, Settings(adjacency="continuous"))
    assert reading.kept.tolist() == [True, True, False, True]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.RNN(INPUT, UNITS, 2, batch_first=True), nn.Linear(UNITS, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@pytest.mark.parametrize("control", [magnitude(2), random(torch.Generator().manual_seed(0))])
def test_a_control_takes_as_many_units_of_each_layer(control):
    torch.manual_seed(0)
    model = Tagger().double().eval()
    with torch.no_grad():
        model.rnn.weight_hh_l0[:, 3] = model.rnn.weight_hh_l0[:, 1]  # twins
        for first, second in ((0, 2), (4, 5)):
            model.rnn.weight_hh_l1[:, first] = model.rnn.weight_hh_l1[:, second]
    settings = Settings(percentile=20)
    sizes = []
    for by in (scorer(settings, "layer", []), as_many(control, settings, "layer")):
        amount = Amount(below=1.0)
        done = prune(model, {}, [(torch.randn(2, 3, INPUT).double(),)], names=["rnn"], amount=amount, scorer=by)
        parts = [part for part in done.model.rnn.modules() if isinstance(part, nn.RNNBase)]
        sizes.append([part.hidden_size for part in parts])
    assert sizes[0] == sizes[1]
    assert sum(UNITS - size for size in sizes[0]) >= 3


def test_of_many_equally_central_units_that_drive_the_same_the_first_stays():
    half = 150
    rows = ["x" * half + "." * half] * half + ["." * half + "x" * half] * half
    assert read(relation(rows), BINARY).kept.nonzero().flatten().tolist() == [0, half]
