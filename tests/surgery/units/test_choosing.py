"""Which groups go: the lowest scores, ties to the lower index, over all layers relative to each layer's mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount, Layer
from compressor.surgery.units.choosing import choose
from compressor.surgery.units.removal import prune

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


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ({"count": 4}, "this would leave no unit in `a`, which has 4"),
        ({"keep": 0}, "this would leave no unit in `a`, which has 4"),
        ({"count": 0}, "no unit would go from `a`, which has 4"),
        ({"keep": 4}, "no unit would go from `a`, which has 4"),
        ({"count": 1, "round_to": 4}, "which has 4 (kept units are rounded up to a multiple of 4)"),
        ({"ratio": 0.1, "scope": "global"}, "0 of 4 units should go, 4 can"),
    ],
)
def test_all_or_none_of_a_layer_that_was_asked_for_is_an_error(amount, message):
    with pytest.raises(SurgeryError) as caught:
        choose([FIRST], np.arange(4.0), {}, Amount(**amount), frozenset({"a"}))
    assert message in caught.value.message


def test_one_ranking_may_take_all_that_is_not_pinned_and_no_more():
    pinned = dict.fromkeys((1, 2), "it is an output")
    assert choose([FIRST], np.arange(4.0), pinned, Amount(ratio=0.5, scope="global"), frozenset()).removed.tolist() == [
        0,
        3,
    ]
    with pytest.raises(SurgeryError, match="3 of 4 units should go, 2 can"):
        choose([FIRST], np.arange(4.0), pinned, Amount(ratio=0.75, scope="global"), frozenset())


def test_what_scores_below_a_number_goes_and_one_unit_stays():
    assert removed([1, 2, 3, 4], [FIRST], below=3.0) == [0, 1]
    assert removed([1, 2, 3, 0], [FIRST], below=9.0) == [0, 1, 3]
    assert removed([1, 2, 3, 4, 9, 9, 9, 9], below=3.0) == [0, 1]  # nothing of the second is below


def test_each_layer_may_take_all_that_is_not_pinned_and_no_more():
    pinned = dict.fromkeys((1, 2), "it is an output")
    assert choose([FIRST], np.arange(4.0), pinned, Amount(count=2), frozenset({"a"})).removed.tolist() == [0, 3]
    with pytest.raises(SurgeryError, match="3 of the 4 units of `a` should go, only 2 can: it is an output"):
        choose([FIRST], np.arange(4.0), pinned, Amount(count=3), frozenset({"a"}))


def test_a_layer_that_was_not_asked_for_is_skipped_with_the_reason():
    pinned = dict.fromkeys((1, 2), "it is an output")
    found = choose([FIRST, SECOND], np.arange(8.0), pinned, Amount(count=3), frozenset({"b"}))
    assert found.removed.tolist() == [4, 5, 6]
    assert [(skip.name, skip.reason.rpartition(": ")[2]) for skip in found.skipped] == [("a", "it is an output")]


def test_a_reason_of_both_directions_is_told_once():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.rnn = nn.Linear(5, 7), nn.GRU(7, 6, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.rnn(torch.relu(self.below(x)))[0]

    examples = [(torch.randn(2, 3, 5),), (torch.randn(3, 7, 5),)]
    names = ["below", "rnn"]
    done = prune(Read().eval(), {}, examples, names=names, amount=Amount(ratio=0.5), required=["below"])
    assert [skip.name for skip in done.skipped] == ["rnn"]
