import re

import pytest
import torch

from compressor.nn.lattice.bits import Bits
from compressor.nn.lattice.order import closure_order
from compressor.render.lattice import places, svg
from compressor.surgery.units.order import Settings, read
from tests.surgery.units.test_order import MEET, relation


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return closure_order(Bits.pack(torch.rand(61, 61) > 0.93))


def test_what_covers_another_stands_above_it_and_every_class_has_one_place(dense):
    found, lonely = places(dense)
    for low, high in dense.covers.unpack().nonzero().tolist():
        assert found[low][1] < found[high][1]
    assert sorted([*found, *lonely]) == list(range(dense.count))
    assert len(set(found.values())) == len(found)
    assert all(0.0 <= x <= 1.0 for x, _ in found.values())


def test_the_diagram_has_a_dot_for_each_class_and_a_line_for_each_cover():
    reading = read(MEET, Settings(threshold=0.5))
    drawn = svg([reading])
    assert reading.facts in drawn
    assert drawn == svg([reading])  # the same order, the same file
    assert drawn.startswith("<svg ")
    assert "xmlns=" in drawn.split(">")[0]
    assert len(re.findall(r"<circle ", drawn)) == reading.order.count


def test_units_that_are_comparable_to_no_other_are_counted():
    alone = relation(["x..", ".x.", "..x"])
    assert "comparable to no other: 3" in svg([read(alone, Settings(threshold=0.5))])
