"""Which groups go: the lowest scores, ties to the lower index, over all layers relative to each layer's mean."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.surgery.units.choice import Amount, Layer
from compressor.surgery.units.choosing import choose

FIRST, SECOND = Layer("a", np.arange(4)), Layer("b", np.arange(4, 8))


def removed(scores, layers=(FIRST, SECOND), **amount):
    return choose(layers, np.array(scores, float), {}, Amount(**amount), frozenset()).removed.tolist()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_of_equal_scores_the_lower_index_goes(scope):
    assert removed([1] * 4, [FIRST], ratio=0.5, scope=scope) == [0, 1]
    assert removed([2, 1, 1, 1], [FIRST], ratio=0.5, scope=scope) == [1, 2]


def test_one_ranking_divides_by_the_mean_of_each_layer():
    assert removed([1, 2, 3, 4, 1000, 2000, 3000, 4000], ratio=0.25, scope="global") == [0, 4]
    assert removed([10, 10, 10, 10, 100, 3000, 3000, 3000], ratio=0.25, scope="global") == [0, 4]


def test_one_ranking_leaves_at_least_one_unit_in_each_layer():
    assert removed([1, 2, 3, 6, 1000, 1000, 1000, 1000], [FIRST, SECOND], ratio=0.375, scope="global") == [0, 1, 2]
    assert removed([0, 0, 0, 0, 1, 2, 3, 4], ratio=0.5, scope="global") == [0, 1, 2]  # the fourth is given back
