from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.nn.masks import n_of_m, prune_, pruned_count, smallest_pruned

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def naive_smallest(weights, kept, count):
    """Sort all places by (kept, |w|, position) and prune the first `count`; pruned ones stay pruned."""
    places = []
    for index, (weight, mask) in enumerate(zip(weights, kept, strict=True)):
        flat = zip(weight.flatten().tolist(), mask.flatten().tolist(), strict=True)
        places += [(keep, abs(value) if keep else 0.0, index, position) for position, (value, keep) in enumerate(flat)]
    result = [mask.clone() for mask in kept]
    for _, _, index, position in sorted(places)[:count]:
        result[index].view(-1)[position] = False
    return result


def naive_n_of_m(weight, kept, n, m):
    result = kept.clone()
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], m):
            columns = range(start, min(start + m, weight.shape[1]))
            order = sorted(columns, key=lambda c: (bool(kept[row, c]), abs(float(weight[row, c])), c))
            for column in order[: max(0, len(columns) - n)]:
                result[row, column] = False
    return result


@st.composite
def masked_weights(draw, shape=None):
    """A weight with many ties and zeros, and a mask."""
    shape = shape or draw(st.tuples(st.integers(0, 5), st.integers(1, 7)))
    size = shape[0] * shape[1]
    values = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    kept = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    dtype = draw(st.sampled_from(DTYPES))
    weight = torch.tensor(values, dtype=torch.float64).reshape(shape).to(dtype) / 2
    return weight, torch.tensor(kept, dtype=torch.bool).reshape(shape)


@settings(deadline=None)
@given(st.data())
def test_global_masks_are_those_of_a_sort_by_magnitude_and_position(data):
    pairs = data.draw(st.lists(masked_weights(), min_size=1, max_size=3))
    weights, kept = [list(side) for side in zip(*pairs, strict=True)]
    count = data.draw(st.integers(0, sum(weight.numel() for weight in weights)))
    for mask, expected in zip(smallest_pruned(weights, kept, count), naive_smallest(weights, kept, count), strict=True):
        assert mask.equal(expected)


@settings(deadline=None)
@given(masked_weights(), st.data())
def test_n_of_m_masks_are_those_of_a_sort_in_every_group(pair, data):
    weight, kept = pair
    m = data.draw(st.integers(2, 5))
    n = data.draw(st.integers(1, m - 1))
    assert n_of_m(weight, kept, n, m).equal(naive_n_of_m(weight, kept, n, m))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 17, 76, 77])
def test_equal_weights_are_pruned_from_the_front_and_in_the_exact_number(dtype, count):
    weight = torch.full((7, 11), -0.5, dtype=dtype)
    (mask,) = smallest_pruned([weight], [torch.ones(7, 11, dtype=torch.bool)], count)
    assert (~mask).flatten().nonzero().flatten().tolist() == list(range(count))


def test_one_threshold_serves_all_tensors_of_a_global_mask():
    small, large = torch.full((3, 5), 0.1), torch.full((2, 7), 9.0)
    masks = smallest_pruned([large, small], [torch.ones_like(w, dtype=torch.bool) for w in (large, small)], 15)
    assert masks[0].all()
    assert not masks[1].any()


def test_masks_that_prune_more_than_asked_come_back_as_they_are():
    kept = torch.tensor([[True, False, False]])
    (mask,) = smallest_pruned([torch.ones(1, 3)], [kept], 1)
    assert mask.equal(kept)


def test_magnitudes_of_several_dtypes_are_compared_exactly():
    single, double = torch.tensor([[0.1]]), torch.tensor([[0.1]], dtype=torch.float64)  # float32's 0.1 is larger
    masks = smallest_pruned([single, double], [torch.ones(1, 1, dtype=torch.bool)] * 2, 1)
    assert masks[0].all()
    assert not masks[1].any()


def test_no_weights_give_no_masks():
    assert smallest_pruned([], [], 0) == []


@pytest.mark.parametrize(
    ("total", "sparsity", "count"),
    [(45, 0.7, 32), (3, 0.5, 2), (15000, 0.9, 13500), (7, 1.0, 7), (7, 0.01, 0), (0, 0.5, 0), (1000, 0.0005, 1)],
)
def test_the_count_is_the_decimal_product_with_halves_up(total, sparsity, count):
    assert pruned_count(total, sparsity) == count


def test_a_pattern_on_a_convolution_runs_along_its_input_channels():
    weight = torch.arange(1.0, 2 * 4 * 3 + 1).reshape(2, 4, 3)  # larger with the channel
    mask = n_of_m(weight, torch.ones_like(weight, dtype=torch.bool), 2, 4)
    assert not mask[:, :2].any()
    assert mask[:, 2:].all()


@pytest.mark.parametrize(("length", "kept"), [(1, 1), (2, 2), (3, 2), (5, 3), (11, 6)])
def test_a_shorter_last_group_keeps_up_to_n(length, kept):
    mask = n_of_m(torch.ones(1, length), torch.ones(1, length, dtype=torch.bool), 2, 4)
    assert int(mask.sum()) == kept


def test_pruned_weights_are_positive_zero():
    model = torch.nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.fill_(-1.0)
    prune_(model, {"weight": torch.zeros(3, 5, dtype=torch.bool)})
    assert not model.weight.any()
    assert not torch.signbit(model.weight).any()


def test_masks_nest_when_the_count_grows():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    kept = [torch.ones(5, 7, dtype=torch.bool)]
    masks = [smallest_pruned([weight], kept, count)[0] for count in range(36)]
    assert all(bool((later <= earlier).all()) for earlier, later in itertools.pairwise(masks))


def test_masks_are_the_same_on_an_accelerator(accelerator):
    weight = torch.randint(-3, 4, (31, 37), generator=torch.Generator().manual_seed(0)).float()
    kept = torch.ones(31, 37, dtype=torch.bool)
    (expected,) = smallest_pruned([weight], [kept], 501)
    (mask,) = smallest_pruned([weight.to(accelerator)], [kept.to(accelerator)], 501)
    assert mask.cpu().equal(expected)
