"""Which groups go: the lowest scores, ties to the lower index, over all layers relative to each layer's mean."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount, Layer
from compressor.surgery.units.choosing import choose, lamp
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


def test_one_ranking_by_lamp_asks_what_is_left_of_each_layer():
    scores = [1.9, 8, 8, 8, 5, 5, 5, 50]  # by the mean 0.29 and 0.31 are lowest, by LAMP 0.018 and 0.0097
    assert removed(scores, ratio=0.125, scope="global") == [0]
    assert removed(scores, ratio=0.125, scope="global", compared="lamp") == [4]


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e3)), min_size=1, max_size=30))
def test_lamp_is_a_part_of_what_is_not_smaller(norms):
    expected = [
        norm**2 / sum(other**2 for other in norms if other >= norm) if norm or any(norms) else 0.0 for norm in norms
    ]
    np.testing.assert_allclose(lamp(np.array(norms)), expected, rtol=1e-9)


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


def kept_of(amount, size, together=1):
    """How many units stay, from the words of the options."""
    if amount.count is not None:
        kept = size - amount.count
    elif amount.keep is not None:
        kept = amount.keep
    else:
        kept = size - int(Fraction(str(amount.ratio)) * size)
    step = math.lcm(amount.round_to, together)
    return min(size, step * -(-kept // step))


amounts = st.one_of(
    st.builds(Amount, ratio=st.sampled_from([0.1, 0.25, 0.29, 0.5, 0.7, 0.9]), round_to=st.integers(1, 3)),
    st.builds(Amount, count=st.integers(1, 7), round_to=st.integers(1, 3)),
    st.builds(Amount, keep=st.integers(1, 7), round_to=st.integers(1, 3)),
)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), amounts, st.sets(st.integers(0, 11), max_size=4))
def test_a_layer_loses_as_many_of_its_lowest_free_units_as_the_option_says(scores, amount, pinned):
    size, kept = len(scores), kept_of(amount, len(scores))
    pinned = {unit: "it is an output" for unit in pinned if unit < size}
    if len(pinned) == size or not 0 < kept < size or size - kept > size - len(pinned):
        with pytest.raises(SurgeryError):
            choose([Layer("a", np.arange(size))], np.array(scores, float), pinned, amount, frozenset({"a"}))
        return
    found = choose([Layer("a", np.arange(size))], np.array(scores, float), pinned, amount, frozenset({"a"}))
    order = sorted((unit for unit in range(size) if unit not in pinned), key=lambda unit: (scores[unit], unit))
    assert found.removed.tolist() == sorted(order[: size - kept])
    assert found.skipped == ()


def test_a_ratio_is_the_decimal_number_that_was_written():
    assert [Amount(ratio=ratio).removed_of(100) for ratio in (0.29, 0.57, 0.58, 1.0, 0.005)] == [29, 57, 58, 100, 0]
    assert Amount(ratio=0.3).removed_of(9) == 2


PAIRS = Layer("glu", np.array([0, 1, 2, 3, 0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("amount", "wanted"),
    [
        ({"count": 2}, [0]),
        ({"count": 3}, [0]),
        ({"count": 4}, [0, 1]),
        ({"keep": 3}, [0, 1]),
        ({"ratio": 0.9}, [0, 1, 2]),
    ],
)
def test_units_that_go_together_only_go_in_whole_groups(amount, wanted):
    assert PAIRS.together == 2
    assert removed([1, 2, 3, 4], [PAIRS], **amount) == wanted


def test_units_kept_are_a_multiple_of_both_the_groups_and_what_was_asked_for():
    layer = Layer("glu", np.tile(np.arange(9), 2))
    found = choose([layer], np.arange(9.0), {}, Amount(count=7, round_to=3), frozenset({"glu"}))
    assert 2 * len(found.removed) == 6  # 11 kept are rounded up to 12


def test_groups_of_other_sizes_fill_the_number_with_the_lowest_that_fit():
    layer = Layer("a", np.array([0, 0, 0, 1, 2, 2, 3]))
    assert layer.sizes() == {0: 3, 1: 1, 2: 2, 3: 1}
    assert layer.together == 1
    assert removed([1, 2, 3, 4], [layer], count=2) == [1, 3]  # 0 has three units, and 2 no longer fits
    assert removed([4, 3, 1, 2], [layer], count=3) == [2, 3]
    assert removed([4, 3, 1, 2], [layer], count=4) == [1, 2, 3]


def test_a_layer_whose_units_all_depend_on_each_other_is_told_and_one_of_a_single_unit_is_not_that():
    together = Layer("a", np.zeros(3, int))
    with pytest.raises(SurgeryError, match="all its units depend on each other"):
        choose([together], np.array([1.0]), {}, Amount(count=1), frozenset({"a"}))
    with pytest.raises(SurgeryError, match="this would leave no unit in `a`, which has 1"):
        choose([Layer("a", np.zeros(1, int))], np.array([1.0]), {}, Amount(count=1), frozenset({"a"}))


def test_reasons_of_pinned_units_are_listed_once_in_order():
    pinned = {0: "z", 1: "a", 2: "z", 3: "a"}
    with pytest.raises(SurgeryError, match="units of `a` cannot be removed: a; z"):
        choose([FIRST], np.arange(4.0), pinned, Amount(count=1), frozenset({"a"}))
    found = choose([FIRST, SECOND], np.arange(8.0), pinned, Amount(count=1), frozenset())
    assert (found.removed.tolist(), [skip.reason for skip in found.skipped]) == ([4], ["a; z"])
    with pytest.raises(SurgeryError, match=r"nothing can be removed \(`a`: a; z\)"):
        choose([FIRST], np.arange(4.0), pinned, Amount(count=1), frozenset())


@pytest.mark.parametrize("optional", [True, False])
def test_an_optional_layer_that_cannot_shrink_is_no_error_even_if_it_was_asked_for(optional):
    first = Layer("a", np.arange(4), optional=optional)
    required = frozenset({"a"})
    for pinned, amount in ((dict.fromkeys(range(4), "it is an output"), Amount(count=1)), ({}, Amount(keep=4))):
        layers = [first, Layer("b", np.arange(4, 9))]
        if optional:
            found = choose(layers, np.arange(9.0), pinned, amount, required)
            assert found.removed.tolist() == [4]
            assert [skip.name for skip in found.skipped] == ["a"]
        else:
            with pytest.raises(SurgeryError):
                choose(layers, np.arange(9.0), pinned, amount, required)


def test_tied_layers_of_one_ratio_lose_the_same_groups_and_of_others_are_skipped_or_refused():
    tied = [Layer("a", np.arange(4)), Layer("b", np.arange(4))]
    found = choose(tied, np.array([4.0, 1, 2, 3]), {}, Amount(ratio=0.5), frozenset({"a", "b"}))
    assert (found.removed.tolist(), found.skipped) == ([1, 2], ())
    amount = Amount(ratio=0.25, ratios={"b": 0.5})
    found = choose(tied, np.array([4.0, 1, 2, 3]), {}, amount, frozenset())
    assert found.removed.tolist() == [1, 2]
    reason = "is tied to layers of other sizes or ratios and would lose 2 units instead of 1"
    assert [(skip.name, skip.reason) for skip in found.skipped] == [("a", reason)]
    with pytest.raises(SurgeryError, match=f"`a` {reason}"):
        choose(tied, np.array([4.0, 1, 2, 3]), {}, amount, frozenset({"a"}))


def test_layers_with_fewer_groups_choose_first():
    wide, narrow = Layer("wide", np.arange(6)), Layer("narrow", np.array([2, 3, 4]))
    found = choose([wide, narrow], np.array([1.0, 2, 9, 8, 9, 9]), {}, Amount(count=1), frozenset())
    assert found.removed.tolist() == [3]  # 0 is the lowest of the wide layer, which loses 3 already


def ranked(layers, scores, ratio, round_to=1, pinned=()):
    """One ranking over all layers: in whole, from the words of the options; layers share no groups here."""
    relative = {}
    for groups in layers:
        mean = np.mean([scores[group] for group in groups]) or 1.0
        relative |= {group: scores[group] / mean for group in groups}
    order = sorted((group for group in relative if group not in pinned), key=relative.get)
    gone = set(order[: int(Fraction(str(ratio)) * len(relative))])
    for groups in layers:
        lost = sorted((group for group in groups if group in gone), key=relative.get)
        kept = max(1, len(groups) - len(lost))
        kept = min(len(groups), round_to * -(-kept // round_to))
        gone -= set(lost[len(groups) - kept :])
    return sorted(gone)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=6), min_size=1, max_size=3),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.integers(1, 3),
    st.sets(st.integers(0, 17), max_size=2),
)
def test_one_ranking_is_that_of_scores_over_the_mean_of_their_layer(scores, ratio, round_to, pinned):
    flat = [score for layer in scores for score in layer]
    starts = np.cumsum([0, *(len(layer) for layer in scores)])
    groups = [list(range(start, stop)) for start, stop in itertools.pairwise(starts.tolist())]
    pinned = {group: "it is an output" for group in pinned if group < len(flat)}
    usable = [each for each in groups if not set(each) <= set(pinned)]
    layers = [Layer(f"m{index}", np.array(each)) for index, each in enumerate(groups)]
    number = int(Fraction(str(ratio)) * sum(map(len, usable)))
    free = sum(group not in pinned for each in usable for group in each)
    wanted = ranked(usable, flat, ratio, round_to, pinned) if 0 < number <= free else []
    amount = Amount(ratio=ratio, scope="global", round_to=round_to)
    if not wanted:
        with pytest.raises(SurgeryError):
            choose(layers, np.array(flat, float), pinned, amount, frozenset())
    else:
        assert choose(layers, np.array(flat, float), pinned, amount, frozenset()).removed.tolist() == wanted


def test_a_group_of_several_layers_counts_with_its_largest_relative_score():
    layers = [Layer("a", np.array([0, 1, 2])), Layer("b", np.array([2, 3, 4]))]
    scores = [5, 6, 1, 0.01, 0.02]  # group 2 is low in a, and by far the largest of b
    assert removed(scores, layers, ratio=0.4, scope="global") == [3, 4]
    with pytest.raises(SurgeryError, match="no unit would go after rounding"):
        choose([FIRST], np.arange(4.0), {}, Amount(ratio=0.5, scope="global", round_to=4), frozenset())


@pytest.mark.parametrize(("below", "round_to", "wanted"), [(3.0, 1, [0, 1]), (3.0, 3, [0]), (3.5, 2, [0, 1])])
def test_what_scores_below_a_number_goes_up_to_the_multiple_that_stays(below, round_to, wanted):
    assert removed([1, 2, 3, 4], [FIRST], below=below, round_to=round_to) == wanted


def test_nothing_below_is_told():
    with pytest.raises(SurgeryError, match="no unit would go: none scores low enough"):
        removed([1, 2, 3, 4], [FIRST], below=0.5)


def test_ratios_of_modules_are_handed_on_to_what_replaces_them():
    amount = Amount(count=2, ratios={"a": 0.5, "b": 0.25})
    assert amount.of("c") is amount
    assert amount.of("a") == Amount(ratio=0.5)
    assert Amount(keep=3, ratios={"a": 0.5}, round_to=2).of("a") == Amount(ratio=0.5, round_to=2)
    assert amount.renamed({"a": ["a.0", "a.1"]}).ratios == {"a.0": 0.5, "a.1": 0.5, "b": 0.25}


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        (Layer("fc", np.arange(2)), "`fc`"),
        (Layer("rnn", np.arange(2), layer=1), "layer 1 of `rnn`"),
        (Layer("rnn", np.arange(2), layer=0, direction=1), "layer 0, backwards of `rnn`"),
    ],
)
def test_errors_call_a_layer_by_its_place(layer, label):
    assert layer.label == label
